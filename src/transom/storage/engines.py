"""How a connection to the database is opened, by dialect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from transom.errors import ConfigurationError

BUSY_TIMEOUT_MS = 10_000
"""How long a connection waits for another process, such as the command line beside the server."""

_DURABLE = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    # On macOS a plain fsync leaves the bytes in the drive's cache.
    "fullfsync": "ON",
    "foreign_keys": "ON",
    # What is deleted or replaced is overwritten by zeros, and not only left to be overwritten one day.
    "secure_delete": "ON",
    "busy_timeout": str(BUSY_TIMEOUT_MS),
}
_READING = {"query_only": "ON", "foreign_keys": "ON", "busy_timeout": str(BUSY_TIMEOUT_MS)}


def writing_engine(url: URL) -> Engine:
    """The engine of the writer thread: a single connection, kept.

    Raises:
        ConfigurationError: the URL is not that of a file.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=1, max_overflow=0)
    _create_private(_file_of(url))
    # IMMEDIATE takes the write lock at once: a transaction that reads first and then finds the lock taken
    # could not be saved by waiting.
    return _sqlite(url, _DURABLE, "BEGIN IMMEDIATE", pool_size=1, max_overflow=0)


def reading_engine(url: URL, connections: int) -> Engine:
    """The engine of the readers; on SQLite it refuses to write."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=connections)
    return _sqlite(url, _READING, "BEGIN", pool_size=connections)


def _file_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(f"{url} names no file; a record that is kept in memory is no record")
    return Path(url.database)


def _create_private(path: Path) -> None:
    """Prompts are in it, so nobody else reads it; SQLite gives the same mode to the files beside it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _sqlite(url: URL, pragmas: dict[str, str], begin: str, **pool: int) -> Engine:
    engine = create_engine(url, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401
        # The driver's own transactions begin late and end early; ours begin and end where we say.
        connection.isolation_level = None
        for name, value in pragmas.items():
            answer = connection.execute(f"PRAGMA {name}={value}").fetchone()
            if name == "journal_mode" and answer != ("wal",):
                raise ConfigurationError(f"{url.database} is on a file system without write-ahead logging")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
