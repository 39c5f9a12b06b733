"""`transom admin vault`: the keys under which prompts and answers are sealed."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from transom.cli.output import exit_on_error, out, write_rows
from transom.config import Settings

if TYPE_CHECKING:
    from transom.storage.database import Database
    from transom.storage.master_keys import MasterKeySource

vault = typer.Typer(help="The keys under which prompts and answers are sealed.", no_args_is_help=True)


def register(admin: typer.Typer) -> None:
    """Add the commands of this module to `admin`."""
    admin.add_typer(vault, name="vault")


@vault.command("status")
@exit_on_error
def vault_status() -> None:
    """Show which master keys there are, how many data keys each wraps, and what is not sealed."""
    from transom.records.sealing import count_unsealed
    from transom.storage.rotation import status

    with _opened() as (database, source):
        found = status(database, source)
        unsealed = database.read_sync(count_unsealed)
    write_rows(
        ("master key", "current", "data keys"),
        [(str(each.version), "yes" if each.current else "", str(each.data_keys)) for each in found.masters],
    )
    out.print(f"The master keys are in {source.place}.")
    out.print(f"Values sealed: {found.seals}. Data keys destroyed: {found.destroyed}.")
    if unsealed:
        out.print(f"Records that are not sealed: {unsealed}. Seal them with `transom admin vault seal`.")


@vault.command("rotate")
@exit_on_error
def rotate_vault() -> None:
    """Make a new master key and wrap every data key by it; old ones stay, for backups."""
    from transom.storage.rotation import rotate

    with _opened() as (database, source):
        done = rotate(database, source)
        _note(database, "vault.rotate", version=done.version, rewrapped=done.rewrapped)
        began = "Finished a rotation" if done.resumed else "Rotated"
        out.print(f"{began}: version {done.version} of the master key wraps {done.rewrapped} data keys.")
        out.print(f"Back up {source.place}, apart from the database.")
        database.scrub()


@vault.command("forget")
@exit_on_error
def forget_masters() -> None:
    """Drop old master keys: backups of the database from before the last rotation then open no more."""
    from transom.storage.rotation import forget

    with _opened() as (database, source):
        dropped = forget(database, source)
        _note(database, "vault.forget", dropped=dropped)
    out.print(f"Dropped {dropped} old master keys.")


@vault.command("seal")
@exit_on_error
def seal_records() -> None:
    """Seal the records from before there was a vault."""
    from transom.records.sealing import seal_earlier
    from transom.storage.vault import Vault

    with _opened() as (database, source):
        sealed = seal_earlier(database, Vault(source))
        _note(database, "vault.seal", records=sealed)
    out.print(f"Sealed {sealed} records.")


def _note(database: Database, action: str, **details: int) -> None:
    """Say in the trail what was done, and by whom."""
    from transom.access.people.persons import at_the_machine
    from transom.access.rights import trail

    actor = at_the_machine(getpass.getuser()).person_id
    entry = trail.Entry(
        at=datetime.now(UTC), actor=actor, action=action, subject="vault", details=dict(details)
    )
    database.write_sync(lambda connection: trail.note(connection, entry))


@contextmanager
def _opened() -> Iterator[tuple[Database, MasterKeySource]]:
    """The database of this home and its master keys, which are made where nothing was sealed yet."""
    from transom.app import master_keys, open_database, open_vault

    settings = Settings()
    database = open_database(settings)
    try:
        open_vault(settings, database)
        yield database, master_keys(settings)
    finally:
        database.close()
