"""What a monitor knows of a log, in a folder: durable, and changed all at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from transom.client.observing.challenge_state import TABLES, ChallengeState
from transom.errors import InvalidRequest, StorageError
from transom.tlog.durable import lock_folder
from transom.tlog.entries import DIGEST, Entry
from transom.tlog.evidence import keep_evidence

_TABLES = """
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), log TEXT NOT NULL,
    note TEXT, since REAL NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS entries (kind TEXT, digest BLOB, PRIMARY KEY (kind, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS projects (project TEXT PRIMARY KEY, sequence INTEGER NOT NULL,
    digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answered (question TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS gaps (project TEXT, first INTEGER, last INTEGER, PRIMARY KEY (project, first));
CREATE TABLE IF NOT EXISTS pending (project TEXT, sequence INTEGER, id TEXT NOT NULL, digest TEXT NOT NULL,
    since REAL NOT NULL, PRIMARY KEY (project, sequence));
"""


Gap: TypeAlias = "tuple[int, int]"
"""The first and the last of the numbers that are missing."""


@dataclass(frozen=True, slots=True)
class OwnRecord:
    """A record of the project that has not been found in the log yet."""

    sequence: int
    id: str
    digest: str
    since: float
    """Unix seconds since when it has been there: by its own word, or since it was seen first."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest record of a project that has been seen."""

    sequence: int
    digest: str


class MonitorState:
    """Where a monitor stands. There is one monitor for a folder at a time, of one log.

    Args:
        folder: made where it is not there.
        log: the log's verifier key.

    Raises:
        InvalidRequest: another monitor uses the folder, it is of another log, or damaged.
    """

    def __init__(self, folder: Path, log: str) -> None:
        self.folder = folder
        try:
            self._lock: int | None = lock_folder(folder)
        except BlockingIOError:
            raise InvalidRequest(f"Another monitor uses {folder}; end it first.", param="state") from None
        try:
            self._database = sqlite3.connect(folder / "monitor.db", isolation_level=None)
            self._open(log)
        except sqlite3.DatabaseError as error:
            self.close()
            raise InvalidRequest(f"{folder} holds no state of a monitor that can be read: {error}.") from None
        except BaseException:
            self.close()
            raise

    def _open(self, log: str) -> None:
        self._database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_TABLES} {TABLES}")
        self.challenges = ChallengeState(self._database)
        self._database.execute("INSERT OR IGNORE INTO head (one, log) VALUES (1, ?)", (log,))
        ((known,),) = self._database.execute("SELECT log FROM head")
        if known != log:
            raise InvalidRequest(f"{self.folder} is of the log {known}; use another folder.", param="state")

    def close(self) -> None:
        """Let another use the folder."""
        if hasattr(self, "_database"):
            self._database.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What is changed inside is changed all at once, and durably; or not at all.

        Raises:
            StorageError: the disk did not take it.
        """
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise StorageError(f"{self.folder} does not take what was seen: {error}.") from None

    # The log.

    @property
    def note(self) -> str | None:
        """The newest checkpoint that was verified, a signed note."""
        ((note,),) = self._database.execute("SELECT note FROM head")
        return None if note is None else str(note)

    @property
    def since(self) -> float:
        """Unix seconds since when it has been the newest."""
        ((since,),) = self._database.execute("SELECT since FROM head")
        return float(since)

    @property
    def read(self) -> int:
        """Entries that have been read."""
        ((read,),) = self._database.execute("SELECT read FROM head")
        return int(read)

    def set_note(self, note: str) -> None:
        """Put a checkpoint in the place of the one before, such as the same with more signatures."""
        self._database.execute("UPDATE head SET note = ?", (note,))

    def advance(self, note: str, now: float) -> None:
        """Put a newer checkpoint in the place of the one before."""
        self._database.execute("UPDATE head SET note = ?, since = ?", (note, now))

    def add_entries(self, entries: Iterable[tuple[int, Entry]], read: int, now: float) -> None:
        """Remember which documents are in the log, at which places, and how many entries have been read."""
        rows = []
        for place, entry in entries:
            rows.append((entry.kind, _bytes_of(entry.digest)))
            if entry.kind in ("challenge", "verdict"):
                self.challenges.add(entry.kind, entry.digest, place, now)
        self._database.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?)", rows)
        self._database.execute("UPDATE head SET read = ?", (read,))

    def has(self, kind: str, digest: str) -> bool:
        """Whether a document is in the log."""
        query = "SELECT 1 FROM entries WHERE kind = ? AND digest = ?"
        return self._database.execute(query, (kind, _bytes_of(digest))).fetchone() is not None

    def any_of(self, kind: str) -> str | None:
        """The digest of some document of a kind; None where the log has none."""
        query = "SELECT digest FROM entries WHERE kind = ? LIMIT 1"
        found = self._database.execute(query, (kind,)).fetchone()
        return None if found is None else f"sha256:{found[0].hex()}"

    def keep_evidence(self, seen: str, shown: str) -> Path | None:
        """Keep two checkpoints that contradict each other; see `transom.tlog.evidence`."""
        return keep_evidence(self.folder, "log", seen, shown)

    # What a server answers.

    def answers(self, question: str) -> None:
        """Remember that a question was answered."""
        self._database.execute("INSERT OR IGNORE INTO answered VALUES (?)", (question,))

    def has_answered(self, question: str) -> bool:
        """Whether a question was answered once."""
        query = "SELECT 1 FROM answered WHERE question = ?"
        return self._database.execute(query, (question,)).fetchone() is not None

    # A project of the server.

    def newest(self, project: str) -> Newest | None:
        """The newest record of a project that has been seen."""
        query = "SELECT sequence, digest FROM projects WHERE project = ?"
        found = self._database.execute(query, (project,)).fetchone()
        return None if found is None else Newest(*found)

    def projects(self) -> list[str]:
        """Those of which records have been seen."""
        return [project for (project,) in self._database.execute("SELECT project FROM projects")]

    def add_records(self, project: str, records: Iterable[OwnRecord], missing: Iterable[Gap]) -> None:
        """Remember records of a project, newest first, and numbers that should have been among them."""
        rows = [(project, each.sequence, each.id, each.digest, each.since) for each in records]
        self._database.executemany("INSERT OR IGNORE INTO pending VALUES (?, ?, ?, ?, ?)", rows)
        gaps = ((project, *gap) for gap in missing)
        self._database.executemany("INSERT OR IGNORE INTO gaps VALUES (?, ?, ?)", gaps)
        if rows:
            newest = (project, rows[0][1], rows[0][3])
            self._database.execute("INSERT OR REPLACE INTO projects VALUES (?, ?, ?)", newest)

    def gaps(self, project: str) -> list[Gap]:
        """Numbers of records that should have been there."""
        query = "SELECT first, last FROM gaps WHERE project = ? ORDER BY first"
        return list(self._database.execute(query, (project,)))

    def pending(self, project: str) -> list[OwnRecord]:
        """Records of a project that have not been found in the log, oldest first."""
        query = "SELECT sequence, id, digest, since FROM pending WHERE project = ? ORDER BY sequence"
        return [OwnRecord(*row) for row in self._database.execute(query, (project,))]

    def found(self, project: str, sequences: Iterable[int]) -> None:
        """Forget records that have been found in the log."""
        rows = ((project, sequence) for sequence in sequences)
        self._database.executemany("DELETE FROM pending WHERE project = ? AND sequence = ?", rows)


def _bytes_of(digest: str) -> bytes:
    """32 bytes of a digest of the log; what a server shows in its place stays as it is, and is not found."""
    return bytes.fromhex(digest[-64:]) if DIGEST.fullmatch(digest) else digest.encode(errors="replace")
