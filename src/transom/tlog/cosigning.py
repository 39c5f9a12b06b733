"""The witnesses of a log are asked, each by a thread of its own, so that none waits for another.

Nothing waits for them either: a checkpoint is published as it is, and gains cosignatures as they come. While
a slow witness answers, newer checkpoints may be published; what it cosigned is not lost then, and may
complete the quorum of the one that it was asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx2

from transom.tlog.asking import WitnessDoor
from transom.tlog.checkpoints import cosigners
from transom.tlog.files import LogReader
from transom.tlog.notes import Note, Signature
from transom.tlog.policies import Policy, Witness

SECONDS = 1.0
"""Between two questions to a witness."""

MOST_SECONDS = 60.0
"""Between two questions to one that does not cosign; until then each pause is twice the one before."""

_KEPT = 16
"""Checkpoints to which cosignatures may still come."""


class Cosigning:
    """Asks the witnesses of a policy for cosignatures of the newest checkpoint.

    Args:
        policy: with the witnesses; those without an address are not asked.
        log: whose checkpoints they are.
        on_error: told by whom nothing is cosigned, and why; once for each reason.
        transport: in the place of the network, for tests.
    """

    def __init__(
        self,
        policy: Policy,
        log: LogReader,
        on_error: Callable[[str, Exception], None],
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.policy = policy
        self._log = log
        self._on_error = on_error
        self._transport = transport
        self._notes: dict[str, Note] = {}
        """By what is signed, oldest first, with what has been cosigned so far."""
        self._changed: set[str] = set()
        self._news = threading.Condition()
        self._wake: Callable[[], object] = lambda: None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, wake: Callable[[], object]) -> None:
        """Begin to ask; once.

        Args:
            wake: called when `taking` has something to give.
        """
        self._wake = wake
        if self._threads:
            return
        for name, witness in self.policy.witnesses.items():
            if witness.url is not None:
                self._threads.append(
                    threading.Thread(
                        target=self._run,
                        args=(name, witness, witness.url),
                        name=f"transom-{name}",
                        daemon=True,
                    )
                )
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ask no more. One that is being waited for is left alone."""
        self._over.set()
        with self._news:
            self._news.notify_all()
        for thread in self._threads:
            thread.join(0.2)

    def offer(self, note: Note) -> None:
        """Have a checkpoint cosigned, the log's newest."""
        with self._news:
            self._notes.pop(note.text, None)
            self._notes[note.text] = note
            while len(self._notes) > _KEPT:
                oldest = next(iter(self._notes))
                del self._notes[oldest]
                self._changed.discard(oldest)
            self._news.notify_all()

    @contextmanager
    def taking(self) -> Iterator[list[Note]]:
        """The checkpoints that were cosigned since the last time, with all that came so far, oldest first.

        They are given again where what is done with them fails: a disk that is full loses no cosignature.
        """
        with self._news:
            found = [note for text, note in self._notes.items() if text in self._changed]
            self._changed.clear()
        try:
            yield found
        except BaseException:
            with self._news:
                self._changed.update(note.text for note in found if note.text in self._notes)
            raise

    def has_quorum(self, note: Note) -> bool:
        """Whether enough witnesses of the policy have cosigned a checkpoint."""
        known = [witness.key for witness in self.policy.witnesses.values()]
        return self.policy.has_quorum(cosigners(note, known))

    def _run(self, name: str, witness: Witness, url: str) -> None:
        asked, pause, said = "", SECONDS, ""
        with WitnessDoor(witness.key, url, self._log, self._transport) as door:
            while (note := self._newest(asked)) is not None:
                began = time.monotonic()
                try:
                    self._add(note, door.cosign(note))
                    asked, pause, said = note.text, SECONDS, ""
                except Exception as error:  # noqa: BLE001  # it may cosign a later one
                    pause = min(2 * pause, MOST_SECONDS)
                    if said != str(error):
                        said = str(error)
                        self._tell(name, error)
                if self._over.wait(max(0.0, pause - (time.monotonic() - began))):
                    return

    def _newest(self, asked: str) -> Note | None:
        """The newest checkpoint, as soon as it is another; None at the end."""
        with self._news:
            while not self._over.is_set():
                newest = next(reversed(self._notes.values()), None)
                if newest is not None and newest.text != asked:
                    return newest
                self._news.wait()
        return None

    def _add(self, note: Note, signature: Signature) -> None:
        with self._news:
            if note.text not in self._notes:
                return  # it took too long
            self._notes[note.text] = self._notes[note.text].signed(signature)
            self._changed.add(note.text)
        self._wake()

    def _tell(self, name: str, error: Exception) -> None:
        # Where it would be said may be on a disk that is full.
        with suppress(Exception):
            self._on_error(name, error)
