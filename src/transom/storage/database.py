"""The database: writes through one thread with group commit, reads beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import OperationalError

from transom.errors import StorageError
from transom.storage.engines import reading_engine, writing_engine
from transom.storage.writer import Job, Together, Writer, alone

T = TypeVar("T")
Item = TypeVar("Item")


class Database:
    """Where everything durable stands.

    Consistency: a write is a function of a connection. It runs as if it were alone: what it reads is
    the latest committed state and the earlier writes of its batch, and nobody changes it meanwhile. If it
    raises, its own changes are undone, its caller gets the exception, and its neighbours notice nothing.
    A read sees one committed state from beginning to end.

    Durability: a write returns only after its commit is on disk (SQLite: write-ahead log,
    `synchronous=FULL`; PostgreSQL: `synchronous_commit=on`). If the commit fails, every write of the batch
    raises `StorageError`. A crash loses nothing that was acknowledged. A connection that is lost fails its
    batch, and the next one opens another.

    Concurrency: writes happen in the order in which they were queued, but for those of `write_together`,
    which may be done earlier, beside the first of their kind in the same commit. The queue is bounded; a
    caller waits for room. Cancelling a caller does not take its write back. Reads never wait for writes.
    Other processes may write to the same database, on PostgreSQL from other machines too; each then waits
    for the others, up to ten seconds (SQLite's write lock; on PostgreSQL an advisory lock that every batch
    takes first).

    Functions given to `write` and `read` return plain data, never a cursor, do not commit, and do nothing
    but SQL and arithmetic: all other writers wait for them.

    The database is trusted: whoever can modify it can add, change or remove keys, projects and records,
    and who notices is an owner who kept their record, or anybody who kept a checkpoint of the public log.
    Whoever can read it alone reads no prompt and no answer, and cannot use a key:
    the private part of records is sealed (`transom.storage.vault`), secrets are stored as keyed hashes, and
    what both need to be undone lies in files of their own.

    Args:
        url: SQLAlchemy URL of a file, such as `sqlite:////var/lib/transom/transom.db`. The folder must
            exist; the file is created, readable by its owner alone. Or of a database on PostgreSQL, such as
            `postgresql+psycopg://transom@db.example/transom`, which must exist.
        capacity: how many writes may wait.
        readers: how many reads run at once.

    Raises:
        ConfigurationError: the URL names no file, or one that cannot have a write-ahead log, or is of a
            kind that is not served.
        StorageError: PostgreSQL cannot be reached.
    """

    def __init__(self, url: str, *, capacity: int = 4096, readers: int = 4) -> None:
        parsed = make_url(url)
        self._writing = writing_engine(parsed)
        _try(self._writing)
        self._reading = reading_engine(parsed, readers)
        self._writer = Writer(self._writing, capacity=capacity)
        # Each loop reads and writes its own entry, so that threads need no lock here.
        self._outboxes: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        self._readers = ThreadPoolExecutor(readers, "transom-reader")

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returned, once its changes are on disk.

        From the first step on, cancelling the caller does not take `fn` back: it is queued with all that
        this turn of the event loop writes.

        Raises:
            StorageError: the batch could not be committed, or the database is closed.
        """
        written: T = await self._submit(alone(fn), None)
        return written

    async def write_together(self, fn: Together[Item, T], item: Item) -> T:
        """`write`, for writes of one kind that many callers make: it costs them one call of `fn`, not many.

        Writes of the same `fn` that come into one commit are done by one call, in the place of the first of
        them. If it raises, its changes are undone, and it is called again for each item alone, so that an
        item which cannot be written hurts no other.

        Args:
            fn: takes the items of all who wait, and gives back a result for each, in their order.
            item: this caller's.

        Raises:
            StorageError: the batch could not be committed, or the database is closed.
        """
        written: T = await self._submit(fn, item)
        return written

    def write_sync(self, fn: Callable[[Connection], T]) -> T:
        """`write`, for callers without an event loop; blocks."""
        done: Future[T] = Future()
        self._writer.submit([Job(alone(fn), None, done)])
        return done.result()

    async def _submit(self, fn: Together[Any, Any], item: object) -> Any:  # noqa: ANN401
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        job = Job(fn, item, done)
        if loop not in self._outboxes:
            # All that one turn of the loop writes goes to the writer at once: it would wake for the first
            # of them, and pay a commit for that alone.
            self._outboxes[loop] = []
            loop.call_soon(self._send, loop)
        self._outboxes[loop].append(job)
        return await done

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = self._outboxes.pop(loop)
        left = self._writer.take(jobs)
        if left:
            loop.run_in_executor(None, self._writer.submit, left)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returned; it sees one committed state and cannot change it."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_sync, fn)

    def read_sync(self, fn: Callable[[Connection], T]) -> T:
        """`read`, for callers without an event loop; blocks."""
        with self._reading.connect() as connection:
            return fn(connection)

    def check(self) -> list[str]:
        """What is damaged, in the database's own words; empty when nothing is. Reads the whole file."""
        return self.read_sync(_damage)

    def scrub(self) -> None:
        """Take what was deleted or replaced out of the files: not even its bytes are there afterwards.

        On SQLite the write-ahead log still holds what was written before; this empties it. Blocks.

        Raises:
            StorageError: somebody read for too long; it can be tried again.
        """
        if self._writing.dialect.name != "sqlite":
            return  # a server's old rows go when it vacuums, and its log when it is recycled
        connection = self._writing.raw_connection()
        try:
            busy = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
        if busy:
            raise StorageError("The write-ahead log is being read, and could not be emptied; try again.")

    def close(self) -> None:
        """Commit what is queued, then let go of everything. Blocks; a second call does nothing."""
        self._writer.close()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()


def _try(engine: Engine) -> None:
    """Connect once: on SQLite, the file is in write-ahead mode before the first reader comes."""
    try:
        engine.connect().close()
    except OperationalError as error:
        raise StorageError(f"The database cannot be opened: {error.orig}") from error


def _damage(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []  # a server checks its pages itself
    pages = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return [line for line in pages if line != "ok"] + [
        f"row {row.rowid} of {row.table} refers to a row of {row.parent} that is not there" for row in orphans
    ]
