"""Following a log from outside: what it has shown once it must go on showing, to everybody alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from transom.client.observing.monitor_state import MonitorState
from transom.errors import NotVerified
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogReader
from transom.tlog.notes import Note
from transom.tlog.policies import Policy
from transom.tlog.tiles import WIDTH
from transom.tlog.verified import VerifiedLog

_BUNDLES = 64
"""Bundles of entries that are remembered at once."""

_MOST_TOLD = 10
"""Entries that cannot be read and are told one by one."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is not as it should be."""

    alert: str
    """Which kind: a name that does not change."""
    message: str
    facts: dict[str, str | int] = field(default_factory=dict)
    """Such as the file with the evidence."""
    may_pass: bool = False
    """Whether a moment later it may be well: what was published last is still on its way to others."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A checkpoint that somebody else was shown."""

    whose: str
    note: str


class Monitor:
    """Looks at a log, and remembers what it saw.

    Args:
        log: as it is shown here.
        state: what was seen before.
        policy: who must have cosigned; None for nobody.
        standstill: seconds after which a checkpoint that does not change is told; None for never.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        log: LogReader,
        state: MonitorState,
        policy: Policy | None = None,
        standstill: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._state = state
        self._policy = policy
        self._standstill = standstill
        self._clock = clock
        self._verified: VerifiedLog | None = None
        self._goes_on = False
        self.began = clock()
        """Unix seconds at which the last look began."""

    @property
    def head(self) -> Checkpoint | None:
        """The newest checkpoint that was verified."""
        note = self._state.note
        return None if note is None else Checkpoint.parse(Note.parse(note).text)

    @property
    def verified(self) -> VerifiedLog | None:
        """The log under that checkpoint; None where the last look was shown none, or another history."""
        return self._tiles(self.head) if self._goes_on and self.head is not None else None

    def look(self, claims: Sequence[Claim] = ()) -> list[Alert]:
        """What is wrong now; with what is new in the log, and with what others were shown.

        Raises:
            ServerUnreachable: nobody is there.
            UnexpectedReply: what answers is no log.
        """
        alerts = list(self._look())
        for claim in claims:
            alerts += self._compare(claim)
        return alerts

    def _look(self) -> Iterator[Alert]:
        self._goes_on, self.began = False, self._clock()
        content = self._log.note()
        if content is None:
            yield Alert(
                "rollback", "There is no checkpoint." if self.head is None else "The checkpoint is gone."
            )
            return
        try:
            head, note = open_checkpoint(content, self._log.key)
            contradictions = list(self._advance(head, note))
            yield from contradictions
            if not contradictions:
                self._goes_on = True
                yield from self._read_entries()
        except NotVerified as error:
            yield Alert("not-verified", _sentence(error.message), may_pass=True)
        yield from self._stands_still()
        yield from self._lacks_quorum(content)

    def _advance(self, head: Checkpoint, note: Note) -> Iterator[Alert]:
        """From the checkpoint that is known to a newer one that grew out of it, and to no other."""
        known = self.head
        if known is None or head.size > known.size:
            verified = VerifiedLog(head, self._log.read)
            if known is not None and not verified.begins_with(known):
                yield self._contradiction(note, f"{head.size} entries do not begin with the {known.size}")
                return
            with self._state.changing():
                self._state.advance(str(note), self._clock())
            self._verified = verified
        elif head.size < known.size:
            message = f"The log shows {head.size} entries, and has shown {known.size}."
            yield Alert("rollback", message, self._evidence(str(note)))
        elif head.root != known.root:
            yield self._contradiction(note, f"there is another root of the {head.size} entries")
        elif str(note) != self._state.note:
            with self._state.changing():
                self._state.set_note(str(note))

    def _contradiction(self, note: Note, how: str) -> Alert:
        message = f"The log shows two histories: {how} that were seen before."
        return Alert("split-view", message, self._evidence(str(note)))

    def _evidence(self, shown: str) -> dict[str, str | int]:
        path = self._state.keep_evidence(self._state.note or "", shown)
        return {} if path is None else {"evidence": str(path)}

    def _tiles(self, head: Checkpoint) -> VerifiedLog:
        if self._verified is None or self._verified.head != head:
            self._verified = VerifiedLog(head, self._log.read)
        return self._verified

    def _read_entries(self) -> Iterator[Alert]:
        """Read what is new under the checkpoint that is known, and remember which documents are there."""
        head, told = self.head, 0
        while head is not None and (start := self._state.read) < head.size:
            end = min(head.size, (start // WIDTH + _BUNDLES) * WIDTH)
            known: list[tuple[int, Entry]] = []
            for index in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
                bundle = self._tiles(head).entries(index)
                first = max(0, start - index * WIDTH)
                for place, content in enumerate(bundle[first:], index * WIDTH + first):
                    try:
                        known.append((place, Entry.parse(content)))
                    except NotVerified as error:
                        told += 1
                        if told <= _MOST_TOLD:
                            yield Alert("unreadable-entry", _sentence(error.message), {"index": place})
            with self._state.changing():
                self._state.add_entries(known, end, self._clock())
        if told > _MOST_TOLD:
            yield Alert("unreadable-entry", f"{told} entries cannot be read; the first were told.")

    def _stands_still(self) -> Iterator[Alert]:
        if self._standstill is None or self._state.note is None:
            return
        seconds = self._clock() - self._state.since
        if seconds > self._standstill:
            yield Alert("standstill", f"The checkpoint has not changed for {seconds:.0f} seconds.")

    def _lacks_quorum(self, content: bytes) -> Iterator[Alert]:
        if self._policy is None:
            return
        try:
            self._policy.verify(content)
        except NotVerified as error:
            yield Alert("no-quorum", _sentence(error.message), may_pass=True)

    def _compare(self, claim: Claim) -> Iterator[Alert]:
        """Hold what somebody else was shown against what is shown here."""
        facts: dict[str, str | int] = {"compared": claim.whose}
        try:
            other, note = open_checkpoint(claim.note, self._log.key)
            head = self.head
            if head is None or other.size > head.size:
                size = 0 if head is None else head.size
                message = f"Somebody else was shown {other.size} entries, and here are {size}."
                yield Alert("withheld", message, facts, may_pass=True)
            elif not self._tiles(head).begins_with(other):
                message = f"Somebody else was shown {other.size} entries with which those here do not begin."
                yield Alert("split-view", message, facts | self._evidence(str(note)))
        except NotVerified as error:
            yield Alert("not-verified", _sentence(error.message), facts, may_pass=True)


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + ("" if message.endswith(".") else ".")
