"""One thread that writes, many callers to a commit.

A commit costs one wait for the disk, whatever it holds. So the writer takes everything that queued up
while it waited last, and commits it together: under load a write costs a fraction of a disk wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from transom.errors import StorageError

T = TypeVar("T")
Write = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Job:
    write: Write[Any]
    done: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class Writer:
    """A bounded queue of writes, and the thread that empties it, batch by batch."""

    def __init__(self, engine: Engine, *, capacity: int) -> None:
        self._engine = engine
        self._capacity = capacity
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="transom-writer", daemon=True)
        self._thread.start()

    def try_submit(self, write: Write[T]) -> Future[T] | None:
        """Queue `write` without waiting; None when the queue is full.

        Raises:
            StorageError: after `close`.
        """
        with self._changed:
            self._refuse_if_closed()
            return None if self._full else self._enqueue(write)

    def submit(self, write: Write[T]) -> Future[T]:
        """Queue `write`, waiting for room.

        Raises:
            StorageError: after `close`, or when closed while waiting.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._full)
            self._refuse_if_closed()
            return self._enqueue(write)

    def close(self) -> None:
        """Take nothing more, commit what is queued, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def _full(self) -> bool:
        return len(self._queue) >= self._capacity

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageError("The database is closed.")

    def _enqueue(self, write: Write[T]) -> Future[T]:
        job = _Job(write)
        # From here on nobody can take it back: a cancelled caller must not decide what a batch contains.
        job.done.set_running_or_notify_cancel()
        self._queue.append(job)
        self._changed.notify_all()
        return job.done

    def _run(self) -> None:
        while batch := self._take():
            self._commit(batch)

    def _take(self) -> list[_Job]:
        """Everything that is queued; empty only when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            batch = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
            return batch

    def _commit(self, batch: list[_Job]) -> None:
        outcomes: list[object] = []
        try:
            with self._engine.begin() as connection:
                outcomes.extend(_attempt(connection, job.write) for job in batch)
        except BaseException as error:  # noqa: BLE001 - the thread outlives any one batch
            _fail(batch, outcomes, error)
        else:
            _settle(batch, outcomes)


def _attempt(connection: Connection, write: Write[Any]) -> object:
    """What `write` returned, or what it raised, its own changes then undone."""
    savepoint = connection.begin_nested()
    try:
        value = write(connection)
        savepoint.commit()
    except Exception as error:
        # After a full disk SQLite has rolled back the whole transaction, savepoints and all. Then this
        # raises, and the batch fails: its other writes are gone too.
        savepoint.rollback()
        if connection.invalidated:
            # The server is gone, and with it the whole transaction.
            raise
        return _Raised(error)
    return value


def _settle(batch: list[_Job], outcomes: list[object]) -> None:
    for job, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, _Raised):
            job.done.set_exception(outcome.error)
        else:
            job.done.set_result(outcome)


def _fail(batch: list[_Job], outcomes: list[object], cause: BaseException) -> None:
    """Each caller gets an exception of their own: one that two threads raise loses its traceback."""
    for index, job in enumerate(batch):
        outcome = outcomes[index] if index < len(outcomes) else None
        if isinstance(outcome, _Raised):
            job.done.set_exception(outcome.error)
            continue
        failure = StorageError(f"The write was not committed: {cause}")
        failure.__cause__ = cause
        job.done.set_exception(failure)
