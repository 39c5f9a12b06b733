"""What a backend does now and has done so far, as numbers for whoever watches it. Knows no engine."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

FIRST_TOKEN_BOUNDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
BETWEEN_TOKENS_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
WHOLE_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Histogram:
    """How often a duration was at most each of some bounds; it only ever grows."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        """Sum of all durations."""
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one duration, or several equal ones."""
        self._counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times

    @property
    def cumulative(self) -> list[int]:
        """For each bound how many durations were at most that long, and last how many there were."""
        return list(accumulate(self._counts))


@dataclass(slots=True)
class Latencies:
    """How long sequences made people wait, as their tokens arrived at the server."""

    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_BOUNDS))
    """From when a sequence was taken to its first token."""
    between_tokens: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS_BOUNDS))
    whole: Histogram = field(default_factory=lambda: Histogram(WHOLE_BOUNDS))
    """From when a sequence was taken to its end, where it ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A backend at one moment. Counts are since the server started, and do not fall when an engine dies."""

    waiting: int = 0
    """Sequences that were taken and do not run."""
    running: int = 0
    pages: int = 0
    """Pages of the cache."""
    pages_used: int = 0
    """Pages that a sequence holds."""
    pages_cached: int = 0
    """Pages that no sequence holds, and whose contents may be used again."""
    steps: int = 0
    step_seconds: float = 0.0
    batch_sequences: int = 0
    """Sum over steps of the sequences in the batch."""
    batch_tokens: int = 0
    """Sum over steps of the rows in the batch."""
    layer_rows: int = 0
    """Sum over steps of the layers that each row went through."""
    prompt_tokens: int = 0
    """Prompt tokens that were computed; those found in the cache are not among them."""
    generated_tokens: int = 0
    scored_tokens: int = 0
    """Prompt tokens whose logprobs were looked up."""
    prefix_queries: int = 0
    """Prompt tokens that were looked up in the prefix cache."""
    prefix_hits: int = 0
    """Prompt tokens that were found there."""
    preemptions: int = 0
    restarts: int = 0
    """Times that the engine died or hung, and was to be started again."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Requests that were refused because too many wait, by whose limit it was: `queue` or `project`."""
    latencies: Latencies = field(default_factory=Latencies)
