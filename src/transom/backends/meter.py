"""Adds up what one engine process after the other tells of itself."""

from __future__ import annotations

from transom.backends.activity import Activity, Latencies
from transom.engine.messages import Stats

_COUNTERS = (
    "steps",
    "step_seconds",
    "batch_sequences",
    "batch_tokens",
    "layer_rows",
    "prefill_tokens",
    "scored_tokens",
    "prefix_queries",
    "prefix_hits",
    "preemptions",
)


class Meter:
    """The newest `Stats` of the engine on top of what its predecessors had counted when they died.

    What an engine did between its last word and its death is not counted: at most a quarter of a second.
    """

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.restarts = 0
        self.generated_tokens = 0
        """Counted as they arrive, so that none is lost with an engine."""
        self._newest = Stats()
        self._earlier = dict.fromkeys(_COUNTERS, 0.0)

    def take(self, stats: Stats) -> None:
        """The engine spoke of itself."""
        self._newest = stats

    def engine_died(self) -> None:
        """The next engine counts from zero, and holds nothing."""
        self._earlier = {name: self._sum(name) for name in _COUNTERS}
        self._newest = Stats()
        self.restarts += 1

    def read(self, *, taken: int, refusals: dict[str, int]) -> Activity:
        """Everything, where `taken` sequences are in flight."""
        newest = self._newest
        # What was said of running sequences is older than what is known of those in flight.
        running = min(newest.running, taken)
        return Activity(
            waiting=taken - running,
            running=running,
            pages=newest.pages,
            pages_used=newest.pages_used,
            pages_cached=newest.pages_cached,
            steps=int(self._sum("steps")),
            step_seconds=self._sum("step_seconds"),
            batch_sequences=int(self._sum("batch_sequences")),
            batch_tokens=int(self._sum("batch_tokens")),
            layer_rows=int(self._sum("layer_rows")),
            prompt_tokens=int(self._sum("prefill_tokens")),
            generated_tokens=self.generated_tokens,
            scored_tokens=int(self._sum("scored_tokens")),
            prefix_queries=int(self._sum("prefix_queries")),
            prefix_hits=int(self._sum("prefix_hits")),
            preemptions=int(self._sum("preemptions")),
            restarts=self.restarts,
            refusals=refusals,
            latencies=self.latencies,
        )

    def _sum(self, name: str) -> float:
        now: float = getattr(self._newest, name)
        return self._earlier[name] + now
