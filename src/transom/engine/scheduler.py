"""Who runs in the next step, and how many tokens of each.

First come, first served: running sequences keep running, one token each once their prompt is computed, and
what is left of the step's token budget goes to prompts, in chunks. When the cache is full, the sequence that
came last gives its pages back and starts over later. None of it can change an answer: a row's arithmetic
knows nothing of the batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from transom.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a sequence that one step computes: positions start .. start + length."""

    sequence: Sequence
    start: int
    length: int

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.start + self.length

    @property
    def completes(self) -> bool:
        """Whether the next token can be drawn after this chunk."""
        return self.end == self.sequence.target


class Scheduler:
    """Owns the queues and the free pages; the runner and the sampler never see them."""

    def __init__(self, *, pages: int, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        # Page 0 is scratch for padding rows.
        self._free = list(range(pages - 1, 0, -1))
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._running

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence in the house, running ones first."""
        return [*self._running, *self._waiting]

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind the others."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A sequence is finished, failed or aborted; its pages are free again."""
        self._free.extend(sequence.rewind())
        if sequence in self._running:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def find(self, sequence_id: str) -> Sequence | None:
        """The sequence of that name, if it is still here."""
        return next((s for s in self.sequences if s.sequence_id == sequence_id), None)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step, at most `max_num_batched_tokens` tokens in all."""
        budget = self._max_num_batched_tokens
        chunks: list[Chunk] = []
        # Sequences that are one token short come first: a decode is never held up by somebody's prompt.
        for sequence in sorted(self._running, key=lambda s: s.target - s.computed > 1):
            if budget and sequence in self._running:
                budget -= self._take(sequence, budget, chunks)
        while budget and self._waiting and len(self._running) < self._max_num_seqs:
            if not self._fits(self._waiting[0]):
                break
            sequence = self._waiting.popleft()
            self._running.append(sequence)
            budget -= self._take(sequence, budget, chunks)
        return chunks

    def _fits(self, sequence: Sequence) -> bool:
        """Whether the whole prompt and one token more find room now; an empty house takes anybody."""
        return sequence.pages_for(sequence.target + 1) <= len(self._free) or not self._running

    def _take(self, sequence: Sequence, budget: int, chunks: list[Chunk]) -> int:
        """Schedule as much of `sequence` as budget and pages allow; the tokens taken."""
        length = min(budget, sequence.target - sequence.computed)
        while (missing := sequence.pages_for(sequence.computed + length)) > len(self._free):
            victim = self._running[-1]
            self._preempt(victim)
            chunks[:] = [chunk for chunk in chunks if chunk.sequence is not victim]
            if victim is sequence:
                return 0
        sequence.pages.extend(self._free.pop() for _ in range(missing))
        chunks.append(Chunk(sequence, sequence.computed, length))
        return length

    def _preempt(self, victim: Sequence) -> None:
        self._free.extend(victim.rewind())
        self._running.remove(victim)
        self._waiting.appendleft(victim)
        self.preemptions += 1
