"""What a person asks of a server, as data: signing in and out, and who one is."""

from __future__ import annotations

from transom.client.operations import Operation
from transom.schema.account import LinkAsked, PersonView, Welcomed


def ask_link(email: str) -> Operation[LinkAsked]:
    """`POST /v1/auth/links`: have a link and a code mailed."""
    body = {"email": email, "session": "token"}
    return Operation("POST", "/v1/auth/links", LinkAsked.model_validate_json, body)


def redeem_token(token: str) -> Operation[Welcomed]:
    """`POST /v1/auth/links/redeem`, by the token of the link."""
    return _redeem({"token": token})


def redeem_code(request: str, code: str) -> Operation[Welcomed]:
    """`POST /v1/auth/links/redeem`, by what `ask_link` returned and the code from the mail."""
    return _redeem({"request": request, "code": code})


def me() -> Operation[PersonView]:
    """`GET /v1/account`."""
    return Operation("GET", "/v1/account", PersonView.model_validate_json)


def sign_out() -> Operation[None]:
    """`POST /v1/auth/sign-out`."""
    return Operation("POST", "/v1/auth/sign-out", lambda _: None)


def _redeem(proof: dict[str, str]) -> Operation[Welcomed]:
    body = {**proof, "session": "token"}
    return Operation("POST", "/v1/auth/links/redeem", Welcomed.model_validate_json, body)
