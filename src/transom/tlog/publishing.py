"""From the database into the public files: what has its place is published, in its order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from transom.errors import LogBroken
from transom.storage.database import Database
from transom.tlog.notes import Note, Signer
from transom.tlog.sequencing import log_size, read_entries
from transom.tlog.writer import LogWriter

SECONDS = 1.0
"""Between two checkpoints, where there is something new."""

MOST_AT_ONCE = 1 << 16
"""Entries under one checkpoint, which bounds memory when much is to be caught up with."""


class Publisher:
    """Brings a log up to the database. Blocks; one thread at a time.

    Args:
        database: with the entries.
        writer: of the files.

    Raises:
        LogBroken: the database is not that of these files.
    """

    def __init__(self, database: Database, writer: LogWriter) -> None:
        self._database = database
        self._writer = writer
        self._check()

    def publish(self) -> Note | None:
        """Publish what is not published, as far as one checkpoint goes; that one, if there is a new one.

        Raises:
            LogBroken: the files hold other entries.
            OSError: the disk did not take them; the next call tries again.
        """
        start = self._writer.size
        entries = self._database.read_sync(lambda connection: read_entries(connection, start, MOST_AT_ONCE))
        return self._writer.append(entries)

    def _check(self) -> None:
        """That the newest published entry is in the database: a copy from before must not be continued."""
        size = self._writer.size
        if self._database.read_sync(log_size) < size:
            raise LogBroken(
                f"{size} entries are published, and the database has fewer: it is an older copy. What was "
                "published cannot be taken back; bring back the newest database, or begin another log."
            )
        if size:
            (last,) = self._database.read_sync(lambda connection: read_entries(connection, size - 1, 1))
            if self._writer.entries(size - 1, size) != [last]:
                raise LogBroken(f"entry {size - 1} in the database is not the one that is published")


class Publication:
    """A thread that publishes the log, unless another process does; then it waits until that no longer does.

    Args:
        database: with the entries.
        folder: of the files.
        signer: the log's own key.
        on_error: told why nothing is published, once for each reason.
    """

    def __init__(
        self, database: Database, folder: Path, signer: Signer, on_error: Callable[[Exception], None]
    ) -> None:
        self._database = database
        self._folder = folder
        self._signer = signer
        self._on_error = on_error
        self._said = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transom-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publish what there is, and end."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._publish()
            except Exception as error:  # noqa: BLE001  # a disk that is full may have room again
                self._tell(error)
            if self._over.wait(SECONDS):
                return

    def _publish(self) -> None:
        with LogWriter(self._folder, self._signer) as writer:
            publisher = Publisher(self._database, writer)
            while True:
                is_over = self._over.is_set()
                while publisher.publish() is not None:
                    self._said = ""
                if is_over:
                    return
                self._over.wait(SECONDS)

    def _tell(self, error: Exception) -> None:
        if self._said != str(error):
            self._said = str(error)
            self._on_error(error)
