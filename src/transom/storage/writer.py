"""One thread that writes, many callers to a commit.

A commit costs one wait for the disk, whatever it holds. So the writer takes everything that queued up
while it waited last, and commits it together: under load a write costs a fraction of a disk wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

from transom.errors import StorageError
from transom.storage.prepared import say
from transom.storage.transactions import abandon, begin, commit, roll_back

T = TypeVar("T")
Item = TypeVar("Item")
Write: TypeAlias = Callable[[Connection], T]
Together: TypeAlias = Callable[[Connection, Sequence[Item]], Sequence[T]]
"""A write for several callers at once: an item of each goes in, a result for each comes out, in order."""


@dataclass(eq=False, slots=True)
class Job:
    """A write that waits for its commit, and who waits for it."""

    run: Together[Any, Any]
    """Jobs of the same function that meet in a commit are run by one call of it."""
    item: Any
    done: asyncio.Future[Any] | Future[Any]
    value: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell who waits, unless they left."""
        if self.done.cancelled():
            return
        if self.error is None:
            self.done.set_result(self.value)
        else:
            self.done.set_exception(self.error)


def alone(write: Write[Any]) -> Together[None, Any]:
    """A write that shares its call with nobody."""
    return lambda connection, _items: (write(connection),)


class Writer:
    """A bounded queue of writes, and the thread that empties it, batch by batch."""

    def __init__(self, engine: Engine, *, capacity: int) -> None:
        self._engine = engine
        self._capacity = capacity
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # The writer waits here alone, and not on the condition: that would make a lock for each wait.
        self._wanted: SimpleQueue[None] = SimpleQueue()
        self._idle = False
        # Kept between batches: to take one from the pool and give it back costs as much as a short write.
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="transom-writer", daemon=True)
        self._thread.start()

    def take(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Queue writes without waiting. After `close` they fail.

        Returns:
            Those for which there is no room now.
        """
        with self._changed:
            if self._closed:
                _fail(jobs, _closed)
                _settle(jobs)
                return ()
            room = self._capacity - len(self._queue)
            self._queue.extend(jobs[:room])
            self._wake()
            return jobs[room:]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue writes, waiting for room. After `close` they fail."""
        while jobs := self.take(jobs):
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._queue) < self._capacity)

    def close(self) -> None:
        """Take nothing more, commit what is queued, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._wake()
        self._thread.join()

    def _wake(self) -> None:
        """Wake the writer where it waits; the lock is held."""
        if self._idle:
            self._idle = False
            self._wanted.put(None)

    def _run(self) -> None:
        while batch := self._take():
            self._commit(batch)
            _settle(batch)
        self._let_go()

    def _take(self) -> list[Job]:
        """Everything that is queued; empty only when closed."""
        while True:
            with self._changed:
                batch = list(self._queue)
                self._queue.clear()
                self._changed.notify_all()
                if batch or self._closed:
                    return batch
                self._idle = True
            self._wanted.get()

    def _commit(self, batch: list[Job]) -> None:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            groups = list(_by_function(batch))
            if len(groups) == 1:
                if _attempt_whole(self._connection, *groups[0]):
                    return
                groups = [(job.run, [job]) for job in batch]
            begin(self._connection)
            for run, jobs in groups:
                _attempt(self._connection, run, jobs)
            commit(self._connection)
        except BaseException as error:  # noqa: BLE001 - the thread outlives any one batch
            _fail(batch, partial(_not_committed, error))
            self._let_go()

    def _let_go(self) -> None:
        """Give the connection back; the next batch takes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            abandon(connection)
            with suppress(Exception):  # it may be lost already
                connection.close()


def _by_function(batch: Iterable[Job]) -> Iterable[tuple[Together[Any, Any], list[Job]]]:
    """Jobs that one call runs, in the place of the first of them."""
    groups: dict[Together[Any, Any], list[Job]] = {}
    for job in batch:
        groups.setdefault(job.run, []).append(job)
    return groups.items()


def _attempt_whole(connection: Connection, run: Together[Any, Any], jobs: Sequence[Job]) -> bool:
    """Run `jobs` as all of a transaction, which needs no savepoint; False where one of several raises.

    As nearly always, and a savepoint keeps a copy of every page that changes.
    """
    begin(connection)
    try:
        values = list(zip(jobs, run(connection, [job.item for job in jobs]), strict=True))
    except Exception as error:
        if _is_lost(connection):
            raise
        roll_back(connection)
        if len(jobs) == 1:
            jobs[0].error = error
        return len(jobs) == 1
    commit(connection)
    for job, value in values:
        job.value = value
    return True


def _is_lost(connection: Connection) -> bool:
    """Whether the whole transaction is gone: with the server, or as SQLite does after a full disk."""
    return connection.invalidated or not getattr(connection.connection, "in_transaction", True)


def _attempt(connection: Connection, run: Together[Any, Any], jobs: Sequence[Job]) -> None:
    """Run `jobs` in a savepoint: together, or where that raises, one by one; who raises is undone alone."""
    # SQLAlchemy's own savepoints cost more than most of what is written within them.
    say(connection, "SAVEPOINT write")
    try:
        values = list(zip(jobs, run(connection, [job.item for job in jobs]), strict=True))
        say(connection, "RELEASE SAVEPOINT write")
    except Exception as error:
        if _is_lost(connection):
            # The batch fails: its other writes are gone too.
            raise
        say(connection, "ROLLBACK TO SAVEPOINT write")
        say(connection, "RELEASE SAVEPOINT write")
        if len(jobs) == 1:
            jobs[0].error = error
            return
        for job in jobs:
            _attempt(connection, run, [job])
    else:
        for job, value in values:
            job.value = value


def _fail(batch: Iterable[Job], failure: Callable[[], StorageError]) -> None:
    """Each caller gets an exception of their own: one that two threads raise loses its traceback."""
    for job in batch:
        if job.error is None:
            job.error = failure()


def _not_committed(cause: BaseException) -> StorageError:
    failure = StorageError(f"The write was not committed: {cause}")
    failure.__cause__ = cause
    return failure


def _closed() -> StorageError:
    return StorageError("The database is closed.")


def _settle(batch: Iterable[Job]) -> None:
    """Tell the callers, those of an event loop all at once: waking it costs more than a write does."""
    waiting: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in batch:
        if isinstance(job.done, Future):
            job.settle()
        else:
            waiting.setdefault(job.done.get_loop(), []).append(job)
    for loop, jobs in waiting.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle_all, jobs)


def _settle_all(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.settle()
