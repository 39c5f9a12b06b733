"""Commands for a person: `login`, `logout`, `whoami`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from transom.cli import output
from transom.cli.output import exit_on_error
from transom.cli.session import signed_in
from transom.client import Client, account
from transom.client.kept import KeptSessions
from transom.errors import InvalidRequest, Unauthenticated
from transom.schema.account import LinkAsked, PersonView, Welcomed

BaseUrl = Annotated[str | None, typer.Option(help="The server's address; else TRANSOM_BASE_URL.")]

_TRIES = 3


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)


@exit_on_error
def login(
    email: Annotated[str | None, typer.Argument(help="Your address; a mail with a code goes there.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Instead: the link from the mail, or a session (ts_…); - reads it from stdin."),
    ] = None,
    base_url: BaseUrl = None,
) -> None:
    """Sign in: by a code that is mailed to you, or by a token that you have. Who is new gets an account."""
    if (email is None) == (token is None):
        raise InvalidRequest("Give either an address or --token.", param="email")
    with Client(base_url, api_key="") as client:
        if token is not None:
            session, person = _by_token(client, _given(token))
        else:
            session, person = _by_code(client, client.send(account.ask_link(email or "")))
        KeptSessions().keep(client.base_url, session)
        output.note(f"Signed in to {client.base_url} as {_who(person)}.")


@exit_on_error
def logout(base_url: BaseUrl = None) -> None:
    """Sign out here: the session ends on the server, and is forgotten on this machine."""
    with Client(base_url, api_key="") as client:
        address = client.base_url
    session = KeptSessions().get(address)
    if session is None:
        output.note(f"Nobody is signed in to {address} here.")
        return
    with Client(address, api_key=session) as client:
        try:
            client.send(account.sign_out())
        except Unauthenticated:
            output.note("The session had ended already.")
    KeptSessions().forget(address)
    output.note(f"Signed out of {address}.")


@exit_on_error
def whoami(
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's reply as it is.")] = False,
    base_url: BaseUrl = None,
) -> None:
    """Show who is signed in here."""
    with signed_in(base_url) as client:
        text, person = client.send(account.me().with_text())
    if as_json:
        output.write_json(text)
    else:
        output.write(_who(person))
        output.note(" · ".join([person.id, *person.roles]))


def _given(token: str) -> str:
    """The token itself, from a whole link too."""
    text = sys.stdin.readline() if token == "-" else token  # noqa: S105  # a dash is no secret
    return text.strip().rpartition("#")[2]


def _by_token(client: Client, token: str) -> tuple[str, PersonView]:
    if not token.startswith("ts_"):
        return _session_of(client.send(account.redeem_token(token)))
    with Client(client.base_url, api_key=token) as theirs:
        return token, theirs.send(account.me())


def _by_code(client: Client, asked: LinkAsked) -> tuple[str, PersonView]:
    output.note("A mail with a code is on its way.")
    for left in reversed(range(_TRIES)):
        code = typer.prompt("Code from the mail", err=True)
        try:
            return _session_of(client.send(account.redeem_code(asked.request, code)))
        except (Unauthenticated, InvalidRequest) as error:
            if not left:
                raise
            output.note(error.message)
    raise AssertionError("the last try returns or raises")


def _session_of(welcomed: Welcomed) -> tuple[str, PersonView]:
    if welcomed.token is None:
        raise Unauthenticated("The server kept the session to itself", code="invalid_link")
    return welcomed.token, welcomed.person


def _who(person: PersonView) -> str:
    return person.email or person.name or person.id
