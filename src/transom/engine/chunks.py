"""What one step computes of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from transom.engine.fairness import TOKEN_COST
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


def scored_positions(chunk: Chunk) -> range:
    """Positions whose logits score the next token of the prompt."""
    if chunk.sequence.wanted_scores is None:
        return range(0)
    return range(chunk.start, min(chunk.end, chunk.sequence.prompt_length - 1))


def judged_positions(chunk: Chunk) -> range:
    """Positions whose logits judge the next token, of a sequence whose tokens are known."""
    sequence = chunk.sequence
    if not sequence.is_forced:
        return range(0)
    first = sequence.prompt_length - 1 + sequence.generated
    return range(max(chunk.start, first), min(chunk.end, len(sequence.tokens) - 1))


def service_of(chunk: Chunk) -> int:
    """What a chunk counts: a row 1, a token that will be drawn TOKEN_COST.

    The row of a generated token has been paid for with the token. One that is computed again after a
    preemption counts like the row of a prompt, and so does one of a token that is known and judged.
    """
    grown = chunk.end > chunk.sequence.prompt_length and not chunk.sequence.is_forced
    decoded = chunk.completes and grown
    drawn = chunk.completes and chunk.sequence.wants_token
    return chunk.length - decoded + TOKEN_COST * drawn
