"""`transom admin signing-key`: the keys that sign records."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from transom.cli.output import exit_on_error, out, write_rows
from transom.config import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from transom.records.signing import SigningKey

signing = typer.Typer(help="The keys that sign records.", no_args_is_help=True)


def register(admin: typer.Typer) -> None:
    """Add the commands of this module to `admin`."""
    admin.add_typer(signing, name="signing-key")


@signing.command("list")
@exit_on_error
def list_signing_keys() -> None:
    """Show the keys that sign records, or did, oldest first."""
    from transom.records.signing import SigningKeyFile

    keys = SigningKeyFile(Settings().signing).public()
    rows = [(key.keyid, key.valid_from, key.valid_until or "in use") for key in keys]
    write_rows(("key", "since", "until"), rows)


@signing.command("rotate")
@exit_on_error
def rotate_signing_key() -> None:
    """Sign with a fresh key from now on; what the old ones signed still verifies."""
    from transom.access.people.persons import at_the_machine
    from transom.access.rights import trail
    from transom.app import open_database
    from transom.records.signing import SigningKeyFile
    from transom.tlog.documents import log_document

    settings = Settings()
    database = open_database(settings)
    try:
        file = SigningKeyFile(settings.signing)

        def write(connection: Connection) -> SigningKey:
            # In a transaction that writes, so that two do not rotate at once.
            fresh = file.rotate(datetime.now(UTC))
            log_document(connection, "key", fresh.document)
            entry = trail.Entry(
                at=datetime.now(UTC),
                actor=at_the_machine(getpass.getuser()).person_id,
                action="signing_key.rotate",
                subject=fresh.key_id,
                details={},
            )
            trail.note(connection, entry)
            return fresh

        fresh = database.write_sync(write)
    finally:
        database.close()
    out.print(f"Records are signed by {fresh.key_id} from {fresh.since} on. Back up {settings.signing}.")
