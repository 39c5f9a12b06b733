"""How a connection to the database is opened, by dialect."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from transom.errors import ConfigurationError
from transom.storage.transactions import begin_immediate

BUSY_TIMEOUT_MS = 10_000
"""How long a connection waits for another process, such as the command line beside the server."""
STATEMENT_TIMEOUT_MS = 60_000
"""How long PostgreSQL works on one statement; a migration has none that takes so long."""
SILENCE_MS = 10_000
"""How long PostgreSQL may leave what was sent to it unacknowledged, before it is taken for lost."""

_WRITERS_LOCK = 0x7472616E736F6D  # "transom"

_DURABLE = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    # On macOS a plain fsync leaves the bytes in the drive's cache.
    "fullfsync": "ON",
    "foreign_keys": "ON",
    # What is deleted or replaced is overwritten by zeros, and not only left to be overwritten one day.
    "secure_delete": "ON",
    "busy_timeout": str(BUSY_TIMEOUT_MS),
    # What a statement may have to undo stays in memory too, and is no file of its own.
    "temp_store": "MEMORY",
    # Records have random names, so their index is written all over: 16 MiB of it stay at hand. The system
    # keeps the rest of the file, and the server soon has the size that it stays at.
    "cache_size": "-16384",
}
_READING = {"query_only": "ON", "foreign_keys": "ON", "busy_timeout": str(BUSY_TIMEOUT_MS)}

_SESSION = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "lock_timeout": str(BUSY_TIMEOUT_MS),
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    # A gateway that stops in the middle of a transaction must not hold the writers' lock for ever.
    "idle_in_transaction_session_timeout": str(BUSY_TIMEOUT_MS),
}


def writing_engine(url: URL) -> Engine:
    """The engine of the writer thread: a single connection, kept, and opened again once it was lost.

    Raises:
        ConfigurationError: the URL is neither that of a file nor of PostgreSQL by psycopg.
    """
    if _is_postgresql(url):
        return _postgresql_writer(url)
    _create_private(_file_of(url))
    # One that the writer keeps, and one for whoever empties the log.
    engine = _sqlite(url, _DURABLE, pool_size=1, max_overflow=1)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        begin_immediate(connection)

    return engine


def reading_engine(url: URL, connections: int) -> Engine:
    """The engine of the readers; it refuses to write."""
    if _is_postgresql(url):
        return create_engine(
            url,
            connect_args=_connect_args(default_transaction_read_only="on"),
            isolation_level="REPEATABLE READ",
            pool_size=connections,
            max_overflow=0,
            # A reader has no batch to fail and begin again with.
            pool_pre_ping=True,
        )
    engine = _sqlite(url, _READING, pool_size=connections)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _is_postgresql(url: URL) -> bool:
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigurationError(
            f"{url.drivername} is not served: use sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME."
        )
    return url.get_backend_name() == "postgresql"


def _postgresql_writer(url: URL) -> Engine:
    """Its transactions begin with one lock for all writers of the database.

    A batch holds writes of many callers, so two gateways could lock the same rows in opposite orders, and
    what one write reads another gateway could change. With the lock neither can happen, as on SQLite.
    """
    engine = create_engine(
        url,
        connect_args=_connect_args(),
        isolation_level="READ COMMITTED",
        pool_size=1,
        max_overflow=0,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")

    return engine


def _connect_args(**more: str) -> dict[str, Any]:
    options = " ".join(f"-c {name}={value}" for name, value in {**_SESSION, **more}.items())
    return {
        "options": options,
        "application_name": "transom",
        "connect_timeout": 5,
        "tcp_user_timeout": SILENCE_MS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }


def _file_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(f"{url} names no file; a record that is kept in memory is no record")
    return Path(url.database)


def _create_private(path: Path) -> None:
    """Prompts are in it, so nobody else reads it; SQLite gives the same mode to the files beside it.

    A file that is there is not opened: closing it would give up the locks of every connection that this
    process has to it (POSIX), and another process could then delete the log under them.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _sqlite(url: URL, pragmas: dict[str, str], **pool: int) -> Engine:
    engine = create_engine(url, **pool)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401
        # The driver's own transactions begin late and end early; ours begin and end where we say.
        connection.isolation_level = None
        for name, value in pragmas.items():
            answer = connection.execute(f"PRAGMA {name}={value}").fetchone()
            if name == "journal_mode" and answer != ("wal",):
                raise ConfigurationError(f"{url.database} is on a file system without write-ahead logging")

    return engine
