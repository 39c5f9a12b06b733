"""After a step that broke: finding the sequence that breaks it, while nobody else notices more than a pause.

Everybody leaves the scheduler. Those who were in the step come back one at a time and alone, until each has
got one token further or has broken a step of its own; then all who are left come back together. Answers do
not depend on company, so none of this shows in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Sequences

from transom.engine.chunks import Chunk
from transom.engine.scheduler import Scheduler
from transom.engine.sequence import Sequence


class Quarantine:
    """Stands between the engine and its scheduler. Inactive, it hands everything through."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._suspects: deque[Sequence] = deque()
        self._trial: Sequence | None = None
        self._waiting: list[Sequence] = []

    @property
    def active(self) -> bool:
        """Whether sequences are kept from the scheduler."""
        return bool(self._suspects or self._trial or self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Take a new sequence."""
        if self.active:
            self._waiting.append(sequence)
        else:
            self._scheduler.add(sequence)

    def remove(self, sequence_id: str) -> None:
        """Forget a sequence, wherever it is; an unknown one is no error."""
        sequence = self._scheduler.find(sequence_id)
        if sequence is not None:
            self._scheduler.remove(sequence)
            self._end_trial(sequence)
        self._suspects = deque(s for s in self._suspects if s.sequence_id != sequence_id)
        self._waiting = [s for s in self._waiting if s.sequence_id != sequence_id]

    def next(self) -> None:
        """Before a step: let the next suspect in, or everybody once there is none."""
        if self._trial is not None:
            return
        if self._suspects:
            self._trial = self._suspects.popleft()
            self._scheduler.add(self._trial)
        else:
            for sequence in self._waiting:
                self._scheduler.add(sequence)
            self._waiting.clear()

    def blame(self, chunks: Sequences[Chunk]) -> Sequence | None:
        """After a step that broke: the sequence that broke it; None while that is to be found out."""
        suspects = [chunk.sequence for chunk in chunks]
        if len(suspects) == 1:
            self._end_trial(suspects[0])
            return suspects[0]
        everybody = self._scheduler.sequences
        for sequence in everybody:
            self._scheduler.remove(sequence)
        self._suspects.extend(suspects)
        self._waiting.extend(s for s in everybody if s not in suspects)
        return None

    def passed(self, sequences: Sequences[Sequence]) -> None:
        """After a step: these got one token further, or to their end."""
        trial = self._trial
        if trial is not None and trial in sequences:
            self._trial = None
            if self._scheduler.find(trial.sequence_id) is not None:
                self._scheduler.remove(trial)
                self._waiting.append(trial)

    def _end_trial(self, sequence: Sequence) -> None:
        if sequence is self._trial:
            self._trial = None
