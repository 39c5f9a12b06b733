"""Whose turn it is: what each project was served, and how much a step may grow for the sake of others.

Projects share the engine by virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024): service is counted in tokens, and the project with the smallest counter comes first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from transom.engine.sequence import Sequence
from transom.schema.generation import Priority

TOKEN_COST = 2
"""Service of a generated token, where a row of a prompt counts 1 and a row found in the cache counts 0."""

STRETCH = 1.25
"""How many times longer a step may take than the least served project's rows alone, while others join it."""

SHORT = 3.0
"""How many times longer than a step of one row a short step takes."""

GENTLE = 1.5
"""How many times longer than the rows of those who generate a step mostly takes that others join: what
stall-free batching bounds by a budget of tokens (Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM
Inference with Sarathi-Serve", OSDI 2024)."""

_REMEMBERED = 64
"""Departed projects that may be forgotten late, to spare a look at all of them at every departure."""


@dataclass(slots=True, eq=False)
class Lane:
    """The sequences of one project in one priority class. It exists while there are any."""

    priority: Priority
    project: str
    counter: int
    """Service so far, in tokens."""
    number: int
    """Tells lanes apart; never used twice."""
    hurried: int = -(1 << 62)
    """The last step in which its rows made others wait who generate."""
    waiting: deque[Sequence] = field(default_factory=deque)
    """By arrival."""
    running: list[Sequence] = field(default_factory=list)

    @property
    def is_batch(self) -> bool:
        """Whether it yields to interactive lanes."""
        return self.priority == "batch"

    @property
    def order(self) -> tuple[bool, int, int, int]:
        """Least first: class, service, and among equals the one that holds less, or came last."""
        return self.is_batch, self.counter, len(self.running), -self.number

    @property
    def held_pages(self) -> int:
        """Pages that its sequences hold or have a claim to; shared ones count for each."""
        return sum(len(sequence.pages) + sequence.claimed for sequence in self.running)

    @property
    def youngest_first(self) -> list[Sequence]:
        """The running sequences, the one that arrived last before the others."""
        return sorted(self.running, key=lambda sequence: -sequence.arrival)


class Lanes:
    """Every sequence in the house by class and project, and the counters of projects that may come back.

    The classes are counted apart: batch work runs on what interactive work leaves, and a project shall not
    pay in the one for what nobody wanted in the other.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[Priority, str], Lane] = {}
        self._departed: dict[tuple[Priority, str], int] = {}
        self._forget_at = _REMEMBERED
        self._opened = 0
        self.running = 0
        self.interactive_waiting = 0

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def of_class(self, priority: Priority) -> list[Lane]:
        """The open lanes of one class."""
        return [lane for lane in self if lane.priority == priority]

    def of(self, sequence: Sequence) -> Lane:
        """The lane of a sequence in the house."""
        return self._open[sequence.request.priority, sequence.request.project]

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives and waits behind the others of its lane."""
        lane = self._open.get((sequence.request.priority, sequence.request.project))
        if lane is None:
            lane = self._enter(sequence.request.priority, sequence.request.project)
        lane.waiting.append(sequence)
        self.interactive_waiting += not lane.is_batch

    def seat(self, lane: Lane) -> Sequence:
        """The first that waits in `lane` runs now."""
        sequence = lane.waiting.popleft()
        lane.running.append(sequence)
        self.running += 1
        self.interactive_waiting -= not lane.is_batch
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """A running sequence waits again, at the place of its arrival."""
        lane = self.of(sequence)
        lane.running.remove(sequence)
        place = 0
        while place < len(lane.waiting) and lane.waiting[place].arrival < sequence.arrival:
            place += 1
        lane.waiting.insert(place, sequence)
        self.running -= 1
        self.interactive_waiting += not lane.is_batch

    def remove(self, sequence: Sequence) -> None:
        """A sequence leaves, from wherever it is."""
        lane = self.of(sequence)
        if sequence in lane.running:
            lane.running.remove(sequence)
            self.running -= 1
        else:
            lane.waiting.remove(sequence)
            self.interactive_waiting -= not lane.is_batch
        if not lane.running and not lane.waiting:
            self._leave(lane)

    def _enter(self, priority: Priority, project: str) -> Lane:
        """Open a lane.

        A project that becomes active is lifted to the smallest counter among the active ones: idle time
        earns nothing, and what it was served beyond the others is not forgotten.
        """
        counter = max(self._departed.pop((priority, project), 0), self._floor(priority))
        self._opened += 1
        lane = self._open[priority, project] = Lane(priority, project, counter, self._opened)
        return lane

    def _leave(self, lane: Lane) -> None:
        """Close a lane; its counter is kept while it could make a difference."""
        key = lane.priority, lane.project
        del self._open[key]
        if any(other.priority == lane.priority for other in self):
            self._departed[key] = lane.counter
            if len(self._departed) > self._forget_at:
                self._forget()
        else:
            # Nobody of this class is kept waiting by what the others were served: all start equal.
            self._departed = {key: c for key, c in self._departed.items() if key[0] != lane.priority}

    def _floor(self, priority: Priority) -> int:
        return min((lane.counter for lane in self if lane.priority == priority), default=0)

    def _forget(self) -> None:
        """Forget the counters that a return would lift anyway: every step raises the smallest of a class."""
        floors = {priority: self._floor(priority) for priority, _ in self._departed}
        self._departed = {key: c for key, c in self._departed.items() if c > floors[key[0]]}
        self._forget_at = 2 * len(self._departed) + _REMEMBERED


class StepTimes:
    """How long a step takes by its number of rows, learnt from the steps themselves.

    Means over buckets whose bounds are powers of two, newer steps weighing more; between them straight lines.
    What is unknown is guessed from its neighbour: time grows as 1 + rows / 16.
    """

    _WEIGHT = 0.1

    def __init__(self) -> None:
        self._means: dict[int, tuple[float, float, int]] = {}
        self._rows: list[float] = []
        self._seconds: list[float] = []

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one step."""
        if rows <= 0 or seconds <= 0:
            return
        bucket = (rows - 1).bit_length()
        mean_rows, mean_seconds, count = self._means.get(bucket, (0.0, 0.0, 0))
        # The mean of the first few, so that a slow first step is soon outweighed.
        weight = max(self._WEIGHT, 1 / (count + 1))
        mean_rows += weight * (rows - mean_rows)
        mean_seconds += weight * (seconds - mean_seconds)
        self._means[bucket] = mean_rows, mean_seconds, count + 1
        self._draw()

    def seconds(self, rows: int) -> float:
        """Expected time of a step; never less for more rows. In units of its own before the first step."""
        if not self._rows:
            return _guess(rows)
        above = bisect_left(self._rows, rows)
        if above in {0, len(self._rows)}:
            known = max(0, above - 1)
            return self._seconds[known] * _guess(rows) / _guess(self._rows[known])
        low, high = self._rows[above - 1], self._rows[above]
        part = (rows - low) / (high - low)
        return self._seconds[above - 1] + part * (self._seconds[above] - self._seconds[above - 1])

    def most_rows(self, rows: int, most: int, stretch: float = STRETCH) -> int:
        """The largest step, of at most `most` rows, that takes no more than `stretch` times one of `rows`."""
        allowed = stretch * self.seconds(rows)
        return rows + bisect_right(range(rows + 1, most + 1), allowed, key=self.seconds)

    def _draw(self) -> None:
        self._rows, self._seconds = [], []
        longest = 0.0
        for _, (rows, seconds, _count) in sorted(self._means.items()):
            longest = max(longest, seconds)
            self._rows.append(rows)
            self._seconds.append(longest)


def _guess(rows: float) -> float:
    return 1 + rows / 16
