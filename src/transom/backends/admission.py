"""How many sequences may be taken at once, and what is said to whoever does not fit.

What waits is bounded, so that a flood costs its sender a refusal and not everybody their answers; and one
project may fill only half of it, so that the others always find room.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from transom.errors import EngineBusy

UNMEASURED_SECONDS = 5
"""What a refusal tells whoever was refused before any sequence had finished."""

_REMEMBERED = 64
"""Finished sequences that the pace is measured by: about one full batch."""

Limit = Literal["queue", "project"]


class Pace:
    """How many sequences finish in a second. Time in which there was nothing to do does not count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._worked = 0.0
        self._since: float | None = None
        self._finished: deque[float] = deque(maxlen=_REMEMBERED)

    def work(self, *, goes_on: bool) -> None:
        """Say whether there is something to do from now on."""
        now = self._clock()
        if self._since is not None:
            self._worked += now - self._since
        self._since = now if goes_on else None

    def note(self) -> None:
        """One sequence has finished."""
        self._finished.append(self._now())

    @property
    def rate(self) -> float | None:
        """Sequences finished in a second of work, over the newest ones; None where none has."""
        if not self._finished:
            return None
        full = len(self._finished) == _REMEMBERED
        begin = self._finished[0] if full else 0.0
        # A second at least: two that finish together are no measure of a pace.
        return len(self._finished) / max(1.0, self._now() - begin)

    def _now(self) -> float:
        """Seconds of work until now."""
        return self._worked + (0.0 if self._since is None else self._clock() - self._since)


class Admission:
    """Room that a request holds for its sequences. Leave it, or close it: what is held is given back once."""

    def __init__(self, give_back: Callable[[int, bool], None], sequences: int) -> None:
        self._give_back = give_back
        self._held = sequences

    def leave(self) -> None:
        """One sequence came to its end, and somebody else may have its room."""
        if self._held:
            self._held -= 1
            self._give_back(1, True)

    def close(self) -> None:
        """Give back what is still held, for sequences that never came to their end."""
        held, self._held = self._held, 0
        if held:
            self._give_back(held, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WaitingRoom:
    """Counts the sequences of one backend that run or wait. Not thread-safe; the event loop calls it.

    Args:
        name: of the model, for messages.
        running: sequences that run at once.
        waiting: sequences that may wait beyond those.
        clock: monotonic seconds.
    """

    def __init__(
        self, name: str, *, running: int, waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._most = running + waiting
        self.share = running + waiting // 2
        """Most sequences of one project; no request can start more."""
        self._clock = clock
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._pace = Pace(clock)
        self._paces: dict[str, Pace] = {}
        self.refusals: dict[str, int] = {"queue": 0, "project": 0}

    def admit(self, project: str, sequences: int) -> Admission:
        """Room for all `sequences` of a request, or for none of them.

        Raises:
            EngineBusy: the queue is full, or the project's half of it; says which, and when to ask again.
        """
        missing = self._total + sequences - self._most
        missing_share = self._inside[project] + sequences - self.share
        if missing_share > 0:
            raise self._refusal("project", project, max(missing, missing_share))
        if missing > 0:
            raise self._refusal("queue", project, missing)
        self._count(project, sequences)
        return Admission(lambda count, finished: self._leave(project, count, finished), sequences)

    def _leave(self, project: str, count: int, finished: bool) -> None:
        if finished:
            self._pace.note()
            self._paces[project].note()
        self._count(project, -count)

    def _count(self, project: str, change: int) -> None:
        self._inside[project] += change
        self._total += change
        self._pace.work(goes_on=self._total > 0)
        if self._inside[project]:
            self._paces.setdefault(project, Pace(self._clock)).work(goes_on=True)
        else:
            del self._inside[project], self._paces[project]

    def _refusal(self, limit: Limit, project: str, missing: int) -> EngineBusy:
        self.refusals[limit] += 1
        seconds = self._seconds_until(missing, self._paces.get(project) if limit == "project" else None)
        if limit == "project":
            held = f"project {project} has {self._inside[project]} sequences here, its share is {self.share}"
        else:
            held = f"{self._total} sequences run or wait, of at most {self._most}"
        message = f"{self._name} has no room for this request: {held}. Ask again in {seconds} s."
        return EngineBusy(message, retry_after=seconds)

    def _seconds_until(self, missing: int, own: Pace | None) -> int:
        """When so many sequences will have finished, if they go on finishing as they did of late."""
        rate = (own.rate if own is not None else None) or self._pace.rate
        return UNMEASURED_SECONDS if rate is None else max(1, math.ceil(missing / rate))
