"""Bring a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from transom.storage.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Run every migration that is missing, all or none of them; does nothing when none is.

    Servers that start together wait for each other: the first one migrates.

    Raises:
        SQLAlchemyError: a migration failed; the schema is as it was.
        StorageError: the database is closed, or could not commit.
    """
    database.write_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    if not connection.in_transaction():
        connection.begin()  # or Alembic would begin one of its own, and end it
    config = Config()
    # The configuration parser reads % as the start of a reference.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
