"""Transactions of writes, begun and ended in the driver's own words on SQLite.

SQLAlchemy's way there and back takes longer than a short write does. It begins a transaction of its own only
once a statement goes through it; what it finds begun then stays as it is (see `engines`).
"""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Connection

from transom.storage.prepared import say


def begin(connection: Connection) -> None:
    """Begin to write; nobody else writes from now on.

    Raises:
        StorageError, SQLAlchemyError: somebody does, and did for too long.
    """
    if connection.dialect.name == "sqlite":
        begin_immediate(connection)
    else:
        connection.begin()


def begin_immediate(connection: Connection) -> None:
    """`begin` on SQLite, unless that is done.

    IMMEDIATE takes the write lock at once: a transaction that reads first and then finds the lock taken could
    not be saved by waiting.
    """
    if not connection.connection.in_transaction:
        say(connection, "BEGIN IMMEDIATE")


def commit(connection: Connection) -> None:
    """Make durable what was written.

    Raises:
        StorageError, SQLAlchemyError: it is not; `roll_back` what is left of it.
    """
    if connection.in_transaction():
        connection.commit()
    else:
        connection.dispatch.commit(connection)  # for whoever listens to the engine's events
        say(connection, "COMMIT")


def roll_back(connection: Connection) -> None:
    """Undo what was written."""
    if connection.in_transaction():
        connection.rollback()
    else:
        connection.connection.rollback()


def abandon(connection: Connection) -> None:
    """`roll_back` where the connection may be lost already."""
    with suppress(Exception):
        roll_back(connection)
