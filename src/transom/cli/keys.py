"""`transom key`: a researcher's own keys, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli.output import err, exit_on_error, out, write, write_rows
from transom.cli.researcher import BaseUrl
from transom.cli.session import signed_in
from transom.client import administration
from transom.errors import InvalidRequest
from transom.schema.keys import NewKeyView

app = typer.Typer(help="Your keys.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id: the middle of its text.")]


@app.command("create")
@exit_on_error
def create_key(  # one for each option
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project, prj_….")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Narrow it to this scope; may be repeated. Else all of the grant's."),
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(help="A limit of its own, such as tokens_per_day=10000; may be repeated."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    base_url: BaseUrl = None,
) -> None:
    """Make a key and print it, once and never again."""
    fields = {"project": project, "name": name, "scopes": scope, "quotas": _amounts(quota), "days": days}
    with signed_in(base_url) as client:
        _show_once(client.send(administration.create_key(fields)))


@app.command("list")
@exit_on_error
def list_keys(
    project: Annotated[
        str | None, typer.Option(help="Only this project's; all of them, if you lead it.")
    ] = None,
    base_url: BaseUrl = None,
) -> None:
    """Your keys, without their secrets."""
    with signed_in(base_url) as client:
        found = client.send(administration.keys(project)).data
    rows = [
        (
            key.id,
            key.project_id,
            key.name,
            " ".join(sorted(key.scopes)) if key.scopes is not None else "all",
            key.expires or "-",
            key.revoked or (key.successor and f"replaced, until {key.retires}") or "-",
            key.last_used or "-",
        )
        for key in found
    ]
    write_rows(("id", "project", "name", "scopes", "expires", "ended", "last used"), rows)


@app.command("rotate")
@exit_on_error
def rotate_key(
    key_id: KeyId,
    grace_hours: Annotated[
        int, typer.Option(min=0, max=168, help="Hours that the old key still works.")
    ] = 24,
    base_url: BaseUrl = None,
) -> None:
    """Make a new key in the place of an old one, and print it, once and never again."""
    with signed_in(base_url) as client:
        _show_once(client.send(administration.rotate_key(key_id, grace_hours * 3600)))
    err.print(f"The old key works for {grace_hours} more hours.", style="dim")


@app.command("revoke")
@exit_on_error
def revoke_key(key_id: KeyId, base_url: BaseUrl = None) -> None:
    """Refuse a key from now on, everywhere within two seconds."""
    with signed_in(base_url) as client:
        key = client.send(administration.revoke_key(key_id))
    out.print(f"Key {key.id} was revoked at {key.revoked}.")


def _show_once(key: NewKeyView) -> None:
    err.print(f"Key {key.id} of project {key.project_id}. It is shown this once:", style="dim")
    write(key.key)


def _amounts(given: list[str] | None) -> dict[str, int] | None:
    if not given:
        return None
    amounts = {}
    for each in given:
        budget, equals, amount = each.partition("=")
        if not equals or not amount.isdecimal():
            raise InvalidRequest(f"--quota {each!r}: write it as budget=number.", param="quotas")
        amounts[budget] = int(amount)
    return amounts
