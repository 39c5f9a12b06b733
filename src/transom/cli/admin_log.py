"""`transom admin log`: the public log, on its machine."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.output import exit_on_error, out, write
from transom.config import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = typer.Typer(help="The public log.", no_args_is_help=True)


def register(admin: typer.Typer) -> None:
    """Add the commands of this module to `admin`."""
    admin.add_typer(log, name="log")


@log.command("key")
@exit_on_error
def log_key() -> None:
    """Print the log's public key, which is made where there is none; it is what witnesses are told."""
    from transom.tlog.keys import open_key

    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write(str(open_key(settings.log_key, settings.log_origin).verifier))


@log.command("status")
@exit_on_error
def log_status() -> None:
    """Show how many entries there are, and how many were published."""
    from transom.app import open_database
    from transom.tlog.sequencing import log_size, published_size

    database = open_database(Settings())
    try:
        size, published = database.read_sync(log_size), database.read_sync(published_size)
    finally:
        database.close()
    out.print(f"{size} entries, {published} of them published.")


@log.command("calibrate")
@exit_on_error
def log_calibration(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Of `transom calibrate`.")],
) -> None:
    """Log a calibration, and from then on replay by it what its other deployment answered."""
    from transom.app import open_database
    from transom.services.evidence.calibrations import accept

    database = open_database(Settings())
    try:
        place = accept(database, file.read_bytes())
    finally:
        database.close()
    out.print(f"The calibration is entry {place} of the log.")


@log.command("rebuild")
@exit_on_error
def rebuild_log() -> None:
    """Allow that the log's files are written again from the database, after they were lost.

    Only where the database is the newest there ever was: from an older one, places that were published are
    given out again, and people who compare will see two logs of one name.
    """
    from transom.access.people.persons import at_the_machine
    from transom.access.rights import trail
    from transom.app import open_database
    from transom.tlog.sequencing import published_size, set_published

    database = open_database(Settings())
    try:
        published = database.read_sync(published_size)
        entry = trail.Entry(
            at=datetime.now(UTC),
            actor=at_the_machine(getpass.getuser()).person_id,
            action="log.rebuild",
            subject="log",
            details={"published": published},
        )

        def write(connection: Connection) -> None:
            set_published(connection, 0)
            trail.note(connection, entry)

        database.write_sync(write)
    finally:
        database.close()
    out.print("The log's files will be written again from the database within seconds of a running server.")
