"""`/v1/account`: one's own account."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from transom.api.body import PersonRoute
from transom.api.dependencies import (
    TheHouse,
    TheSignedIn,
    no_store,
    refuse_unknown_query,
)
from transom.api.errors import documented
from transom.api.visitor import take_session, visitor_of
from transom.schema.account import (
    AccountChange,
    EmailRequest,
    IdentityView,
    LinkAsked,
    LinkProof,
    PasskeyChallenge,
    PasskeyNew,
    PasskeyView,
    PersonView,
    SessionView,
    Welcomed,
)
from transom.services.people import account
from transom.services.people.sign_in import view, welcome

router = APIRouter(
    prefix="/account",
    tags=["Account"],
    route_class=PersonRoute,
    dependencies=[Depends(no_store), Depends(refuse_unknown_query)],
)

_READ = documented(400, 401, 403)
_CHANGE = documented(400, 401, 403, 404, 409)
_BODY = documented(400, 401, 403, 404, 409, 413, 415, 429, 503)

Id = Annotated[str, Path(alias="id", max_length=100)]


@router.get("", responses=_READ)
async def me(signed_in: TheSignedIn) -> PersonView:
    """Who is signed in."""
    return view(signed_in.person)


@router.patch("", responses=_BODY)
async def change(house: TheHouse, signed_in: TheSignedIn, body: AccountChange) -> PersonView:
    """Change one's name."""
    return await account.change(house, signed_in, body)


@router.delete("", status_code=204, responses=_CHANGE)
async def leave(response: Response, house: TheHouse, signed_in: TheSignedIn) -> None:
    """Delete one's account; only the bare id stays, at which records point. Needs a recent sign-in."""
    await account.leave(house, signed_in)
    take_session(response, house.entrance)


@router.get("/export", responses=_READ)
async def export(house: TheHouse, signed_in: TheSignedIn) -> dict[str, Any]:
    """Everything that the server keeps about oneself."""
    return await account.export(house, signed_in)


@router.post("/email", status_code=202, responses=_BODY)
async def ask_email(
    request: Request, house: TheHouse, signed_in: TheSignedIn, body: EmailRequest
) -> LinkAsked:
    """Have a code mailed to an address that is to be one's own. Needs a recent sign-in."""
    return await account.ask_email(house, signed_in, body, visitor_of(request, house.entrance, "token"))


@router.post("/email/confirm", responses=_BODY)
async def confirm_email(
    request: Request, house: TheHouse, signed_in: TheSignedIn, body: LinkProof
) -> PersonView:
    """Take an address for one's own, by the code that was mailed there."""
    return await account.confirm_email(house, signed_in, body, visitor_of(request, house.entrance, "token"))


@router.get("/sessions", responses=_READ)
async def list_sessions(house: TheHouse, signed_in: TheSignedIn) -> list[SessionView]:
    """Where one is signed in, the latest sign-in first."""
    return await account.sessions(house, signed_in)


@router.post("/sessions", responses=_CHANGE)
async def add_session(request: Request, house: TheHouse, signed_in: TheSignedIn) -> Welcomed:
    """A session for a program, as a bearer token that is shown once. Needs a recent sign-in."""
    agent = request.headers.get("user-agent", "")
    return welcome(await account.another_session(house, signed_in, agent))


@router.delete("/sessions", status_code=204, responses=_CHANGE)
async def end_sessions(response: Response, house: TheHouse, signed_in: TheSignedIn) -> None:
    """Sign out everywhere, here included."""
    await account.end_sessions(house, signed_in)
    take_session(response, house.entrance)


@router.delete("/sessions/{id}", status_code=204, responses=_CHANGE)
async def end_session(house: TheHouse, signed_in: TheSignedIn, session_id: Id) -> None:
    """Sign out somewhere."""
    await account.end_session(house, signed_in, session_id)


@router.get("/passkeys", responses=_READ)
async def list_passkeys(house: TheHouse, signed_in: TheSignedIn) -> list[PasskeyView]:
    """One's passkeys, oldest first."""
    return await account.passkeys(house, signed_in)


@router.post("/passkeys/challenge", responses=documented(400, 401, 403, 404, 409, 429))
async def ask_new_passkey(request: Request, house: TheHouse, signed_in: TheSignedIn) -> PasskeyChallenge:
    """What to ask an authenticator, so that it makes a passkey. Needs a recent sign-in."""
    return await account.ask_new_passkey(house, signed_in, visitor_of(request, house.entrance, "token"))


@router.post("/passkeys", responses=_BODY)
async def add_passkey(house: TheHouse, signed_in: TheSignedIn, body: PasskeyNew) -> PasskeyView:
    """Keep the passkey that the authenticator made. Needs a recent sign-in."""
    return await account.add_passkey(house, signed_in, body)


@router.delete("/passkeys/{id}", status_code=204, responses=_CHANGE)
async def remove_passkey(house: TheHouse, signed_in: TheSignedIn, passkey_id: Id) -> None:
    """Forget a passkey, unless it is the only way in."""
    await account.remove_passkey(house, signed_in, passkey_id)


@router.get("/identities", responses=_READ)
async def list_identities(house: TheHouse, signed_in: TheSignedIn) -> list[IdentityView]:
    """One's accounts elsewhere, oldest first."""
    return await account.identities(house, signed_in)


@router.delete("/identities/{id}", status_code=204, responses=_CHANGE)
async def remove_identity(house: TheHouse, signed_in: TheSignedIn, identity_id: Id) -> None:
    """Forget an account elsewhere, unless it is the only way in."""
    await account.remove_identity(house, signed_in, identity_id)
