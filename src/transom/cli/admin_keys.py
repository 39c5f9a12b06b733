"""`transom admin key` and `pepper`: the operator's own keys, and what all keys are hashed with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from transom.cli.output import err, exit_on_error, out, write, write_rows
from transom.cli.premises import in_office
from transom.config import Settings

keys = typer.Typer(help="Keys of the operator's own project, `local`.", no_args_is_help=True)
peppers = typer.Typer(help="The secrets under which keys are hashed.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(keys, name="key")
    app.add_typer(peppers, name="pepper")


@keys.command("create")
@exit_on_error
def create_key(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
) -> None:
    """Make a key and print it, once and never again."""
    from transom.services.people.keys import create_local

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    new = in_office(lambda office, caller: create_local(office, caller, name, expires))
    err.print(f"Key {new.info.id} of project {new.info.project_id}. It is shown this once:", style="dim")
    write(new.text)


@keys.command("list")
@exit_on_error
def list_keys() -> None:
    """Every key of the project, without its secret."""
    rows = [
        (info.id, info.name, *map(_moment, (info.created, info.expires, info.revoked, info.last_used)))
        for info in in_office(lambda office, _: office.keys.list_keys())
    ]
    write_rows(("id", "name", "created", "expires", "revoked", "last used"), rows)


@keys.command("revoke")
@exit_on_error
def revoke_key(key_id: str) -> None:
    """Refuse a key of any project from now on, everywhere within two seconds."""
    from transom.services.people.keys import revoke_as_operator

    info = in_office(lambda office, caller: revoke_as_operator(office, caller, key_id))
    out.print(f"Key {info.id} was revoked at {info.revoked}.")


@peppers.command("rotate")
@exit_on_error
def rotate_pepper() -> None:
    """Make a fresh pepper for keys from now on; those that exist keep theirs."""
    from transom.access.credentials.peppers import PepperFile
    from transom.services.people.peppers import rotate

    file = PepperFile(Settings().peppers)
    version = in_office(lambda office, caller: rotate(office, caller, file))
    out.print(f"New keys are hashed under pepper {version}. Back up {Settings().peppers}.")


@peppers.command("retire")
@exit_on_error
def retire_pepper(version: Annotated[int, typer.Argument(help="Its number.")]) -> None:
    """Forget an old pepper, once nothing that works needs it."""
    from transom.access.credentials.peppers import PepperFile
    from transom.services.people.peppers import retire

    file = PepperFile(Settings().peppers)
    in_office(lambda office, caller: retire(office, caller, file, version))
    out.print(f"Pepper {version} is forgotten.")


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "-"
