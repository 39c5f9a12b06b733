"""A witness: it cosigns the checkpoints of logs that it saw grow, and of each log one history only.

What it cosigns is kept durably before it is signed. So whatever breaks, no cosignature is out of which the
witness does not know, and there is none of a log that contradicts another. Of each log it keeps the newest
checkpoint, in a file of its own, with the time under which it was cosigned: times of a log do not go back
either, whatever the clock does, since a cosignature says that this was the largest that had been seen by then
(https://c2sp.org/tlog-cosignature).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Self, TypeAlias

from transom.errors import LogBroken, NotVerified
from transom.schema.merkle import EMPTY_ROOT
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.durable import Holder, Step, lock_folder, no_step, replace_file
from transom.tlog.evidence import keep_evidence
from transom.tlog.notes import COSIGNATURE, Note, Signature, Signer, VerifierKey
from transom.tlog.submissions import Submission
from transom.tlog.tree import verify_consistency


class Refusal(Enum):
    """Why a checkpoint is not cosigned."""

    MALFORMED = "malformed"
    UNKNOWN_LOG = "unknown log"
    NOT_SIGNED = "not signed"
    CONFLICT = "conflict"
    """With what the witness knows: of another size than was said, or with another root of the same size."""
    NOT_GROWN = "not grown"
    """The proof does not show that it grew out of what the witness knows."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is no."""

    reason: Refusal
    message: str
    size: int = 0
    """In a conflict: of the log as the witness knows it."""


Logs: TypeAlias = Callable[[], Collection[VerifierKey]]
"""The keys of the logs that are followed now."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was cosigned last of a log."""

    time: int
    """Unix seconds of the cosignature."""
    head: Checkpoint
    note: str

    @property
    def content(self) -> bytes:
        return f"{self.time}\n{self.note}".encode()

    @classmethod
    def parse(cls, content: bytes) -> Self:
        seconds, _, note = content.decode().partition("\n")
        return cls(int(seconds), Checkpoint.parse(Note.parse(note).text), note)


class Witness(Holder):
    """Cosigns. There is one for a folder at a time; any thread may ask it.

    Args:
        folder: of what it has seen; made where it is not there.
        signer: its key, of cosignatures.
        logs: which logs it follows.
        step: told the name of each step before it is taken; for tests that break it there.

    Raises:
        LogBroken: another process has the folder.
        ValueError: the key is of another kind.
    """

    def __init__(self, folder: Path, signer: Signer, logs: Logs, step: Step = no_step) -> None:
        if signer.kind != COSIGNATURE:
            raise ValueError("a witness has a key for cosignatures")
        self.key = signer.verifier
        self._folder = folder
        self._signer = signer
        self._logs = logs
        self._step = step
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        try:
            self._lock = lock_folder(folder)
        except BlockingIOError:
            raise LogBroken(
                f"another witness uses {folder}; two of one key would not know what the other cosigns"
            ) from None

    def add_checkpoint(self, content: bytes) -> Signature | Refused:
        """The cosignature of a submitted checkpoint, or why there is none. Blocks.

        Raises:
            LogBroken: what was kept of this log cannot be read; nothing of it is cosigned.
            OSError: the disk did not keep it; nothing was cosigned.
        """
        try:
            submission = Submission.parse(content)
            note = Note.parse(submission.note)
            head = Checkpoint.parse(note.text)
        except NotVerified as error:
            return Refused(Refusal.MALFORMED, error.message)
        keys = [key for key in self._logs() if key.name == head.origin]
        if not keys:
            return Refused(Refusal.UNKNOWN_LOG, f"the log {head.origin[:80]!r} is not followed here")
        try:
            signed = bool(note.verified(keys))
        except NotVerified:
            signed = False
        if not signed:
            return Refused(
                Refusal.NOT_SIGNED, f"no key that is known here of {head.origin[:80]!r} has signed it"
            )
        if submission.old > head.size:
            return Refused(Refusal.MALFORMED, "the old size is larger than that of the checkpoint")
        # Between looking and keeping nobody else's checkpoint of this log may come.
        with self._turn(head.origin):
            return self._consider(submission, head, note)

    def _turn(self, origin: str) -> threading.Lock:
        """Only logs that are followed come here, so that these are few."""
        with self._guard:
            return self._turns.setdefault(origin, threading.Lock())

    def _consider(self, submission: Submission, head: Checkpoint, note: Note) -> Signature | Refused:
        seen = self._seen(head.origin)
        size, root = (0, EMPTY_ROOT) if seen is None else (seen.head.size, seen.head.root)
        if submission.old != size:
            return Refused(Refusal.CONFLICT, f"the newest that was cosigned has {size} entries", size)
        if head.size == size and head.root != root:
            if seen is not None:
                keep_evidence(self._folder, self._file(head.origin).stem, seen.note, str(note))
            return Refused(Refusal.CONFLICT, f"there is another root of {size} entries", size)
        try:
            verify_consistency(submission.proof, size, head.size, root, head.root)
        except NotVerified as error:
            return Refused(Refusal.NOT_GROWN, error.message)
        return self._cosign(seen, head, note)

    def _cosign(self, seen: _Seen | None, head: Checkpoint, note: Note) -> Signature:
        now = int(self._signer.clock())
        found = _Seen(now if seen is None else max(now, seen.time), head, str(note))
        if seen is None or (found.time, found.head) != (seen.time, seen.head):
            replace_file(self._file(head.origin), found.content, self._step)
        self._step("sign")
        return replace(self._signer, clock=lambda: found.time).sign(note.text)

    def _seen(self, origin: str) -> _Seen | None:
        path = self._file(origin)
        try:
            seen = _Seen.parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except (NotVerified, ValueError) as error:
            raise LogBroken(f"{path} is damaged, and nothing of {origin!r} is cosigned: {error}") from None
        if seen.head.origin != origin:
            raise LogBroken(f"{path} is of {seen.head.origin!r}, and nothing of {origin!r} is cosigned")
        return seen

    def newest(self, origin: str) -> Checkpoint | None:
        """What was cosigned last of a log.

        Raises:
            LogBroken: it cannot be read.
        """
        seen = self._seen(origin)
        return None if seen is None else seen.head

    def _file(self, origin: str) -> Path:
        # A name of a log may hold what no name of a file can.
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.seen"
