"""From the database into the public files: what has its place is published, in its order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from transom.errors import LogBroken, LogTaken
from transom.storage.database import Database
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.cosigning import Cosigning
from transom.tlog.files import LogFiles, check_files
from transom.tlog.notes import Note, Signer
from transom.tlog.sequencing import log_size, published_size, read_entries, set_published
from transom.tlog.writer import LogWriter

SECONDS = 1.0
"""Between two checkpoints, where there is something new."""

MOST_AT_ONCE = 1 << 16
"""Entries under one checkpoint, which bounds memory when much is to be caught up with."""


_COMPARED = 1024
"""Entries that are compared at once."""


class Publisher:
    """Brings a log up to the database. Blocks; one thread at a time.

    Args:
        database: with the entries.
        writer: of the files.
    """

    def __init__(self, database: Database, writer: LogWriter) -> None:
        self._database = database
        self._writer = writer

    @property
    def published(self) -> int:
        """Entries under the checkpoint."""
        return self._writer.size

    def publish(self) -> Note | None:
        """Publish what is not published, as far as one checkpoint goes; that one, if there is a new one.

        Raises:
            LogBroken: the database is not that of these files.
            OSError: the disk did not take them; the next call tries again.
        """
        size = self._writer.size
        if size < self._database.read_sync(published_size):
            raise LogBroken(
                "The files of the log are missing, or older than what was published. Bring them back; or, "
                "if the database is surely the newest, write them again: transom admin log rebuild."
            )
        # The last published one comes along: a database that went back is seen before it is continued.
        start = max(0, size - 1)
        found = self._database.read_sync(lambda connection: read_entries(connection, start, MOST_AT_ONCE))
        if size:
            self._check(found[:1], size)
            found = found[1:]
        note = self._writer.append(found)
        if found:
            done = self._writer.size
            self._database.write_sync(lambda connection: set_published(connection, done))
        return note

    @property
    def size(self) -> int:
        """Entries in the database, published or not."""
        return self._database.read_sync(log_size)

    def _check(self, last: list[bytes], size: int) -> None:
        """That the newest published entry is in the database: a copy from before must not be continued."""
        if not last:
            raise LogBroken(
                f"{size} entries are published, and the database has fewer: it is an older copy. What was "
                "published cannot be taken back; bring back the newest database, or begin another log."
            )
        if self._writer.entries(size - 1, size) != last:
            raise LogBroken(f"entry {size - 1} in the database is not the one that is published")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a log is published."""

    kept: int = 0
    """Entries in the database."""
    published: int = 0
    """Entries under the checkpoint."""
    checked: float = 0.0
    """When that was looked at, in Unix seconds."""
    stands: str | None = None
    """Why nothing is published; None where it is."""


class Publication:
    """A thread that publishes the log, unless another process does; then it waits until that no longer does.

    Args:
        database: with the entries.
        folder: of the files.
        signer: the log's own key.
        on_error: told why nothing is published, once for each reason.
        cosigning: asks witnesses; None where there are none.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        signer: Signer,
        on_error: Callable[[Exception], None],
        cosigning: Cosigning | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._signer = signer
        self._on_error = on_error
        self._cosigning = cosigning
        self._progress = Progress()
        self._over = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transom-log", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """As of a second ago."""
        return self._progress

    def close(self) -> None:
        """Publish what there is, and end."""
        self._over.set()
        self._wake.set()
        self._thread.join()
        if self._cosigning is not None:
            self._cosigning.close()

    def _run(self) -> None:
        while True:
            try:
                self._publish()
            except LogTaken:
                self._follow()
            except Exception as error:  # noqa: BLE001  # a disk that is full may have room again
                self._tell(error)
            if self._over.wait(SECONDS):
                return

    def _publish(self) -> None:
        with LogWriter(self._folder, self._signer) as writer:
            publisher = Publisher(self._database, writer)
            self._ask_witnesses(writer)
            while True:
                is_over = self._over.is_set()
                # What comes meanwhile is for the next second; where there was much, it takes several steps.
                aim = publisher.size
                while (note := publisher.publish()) is not None:
                    if self._cosigning is not None:
                        self._cosigning.offer(note)
                    if publisher.published >= aim:
                        break
                self._progress = Progress(aim, publisher.published, time.time())
                if is_over:
                    return
                self._pause(writer)

    def _ask_witnesses(self, writer: LogWriter) -> None:
        """Only who publishes asks, and begins with what is published: a witness may have been away."""
        if self._cosigning is None:
            return
        note = writer.note()
        if note is not None:
            self._cosigning.offer(open_checkpoint(note, writer.key)[1])
        self._cosigning.start(self._wake.set)

    def _pause(self, writer: LogWriter) -> None:
        """Wait for the next checkpoint, and meanwhile publish the cosignatures that come."""
        deadline = time.monotonic() + SECONDS
        while not self._over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()
            self._publish_cosigned(writer)

    def _publish_cosigned(self, writer: LogWriter) -> None:
        if self._cosigning is None:
            return
        with self._cosigning.taking() as notes:
            for note in notes:
                if writer.is_published(note):
                    writer.publish(note)
                if self._cosigning.has_quorum(note):
                    writer.keep_cosigned(note)

    def _follow(self) -> None:
        """Note how far the process is that publishes."""
        with suppress(Exception):  # a database that is away for a moment is not this thread's to tell
            kept, published = self._database.read_sync(_sizes)
            self._progress = Progress(kept, published, time.time())

    def _tell(self, error: Exception) -> None:
        said, self._progress = self._progress.stands, replace(self._progress, stands=str(error))
        if said != str(error):
            # Where it would be said may be on the disk that is full.
            with suppress(Exception):
                self._on_error(error)


def _sizes(connection: Connection) -> tuple[int, int]:
    return log_size(connection), published_size(connection)


def find_departures(database: Database, log: LogFiles) -> Iterator[str]:
    """Everything in which the published files are at odds with each other or with the database. Blocks.

    Args:
        database: with the entries.
        log: its files.
    """
    # In this order: under a running server each may be larger than the one before, and never smaller.
    published = database.read_sync(published_size)
    head = log.checkpoint()
    kept = database.read_sync(log_size)
    if head.size > kept:
        yield f"{head.size} entries are published, and the database has {kept}"
    if head.size < published:
        yield f"{published} entries were published, and the files of the log have {head.size}"
    batch: list[bytes] = []
    wrong: list[str] = []

    def compare(place: int, content: bytes) -> None:
        if place % _COMPARED == 0:
            batch[:] = database.read_sync(lambda connection: read_entries(connection, place, _COMPARED))
        if place % _COMPARED < len(batch) and batch[place % _COMPARED] != content:
            wrong.append(f"entry {place} of the log is published with another content")

    yield from check_files(log, compare, head)
    yield from wrong
