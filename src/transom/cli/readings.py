"""What `/metrics` said at one moment, and what happened between two such moments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from transom.client import UnexpectedReply

_Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """The samples of one scrape."""

    at: float
    """Seconds on a clock that does not jump."""
    samples: Mapping[tuple[str, _Labels], float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, at: float) -> Reading:
        """The reading in Prometheus's text.

        Raises:
            UnexpectedReply: this is no such text, or not a Transom server's.
        """
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError as error:
            raise UnexpectedReply(f"What is at /metrics there are no metrics: {error}") from error
        reading = cls(
            at,
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            },
        )
        if not any(name.startswith("transom_") for name, _ in reading.samples):
            raise UnexpectedReply("The metrics there are not those of a Transom server; check the address.")
        return reading

    @property
    def models(self) -> list[str]:
        """The models that it speaks of, by name."""
        found = (dict(labels) for name, labels in self.samples if name == "transom_model_ready")
        return sorted(labels["model"] for labels in found if "model" in labels)

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, model: str) -> float:
        """The sum of a model's samples of one name."""
        return sum(
            value
            for (each, labels), value in self.samples.items()
            if each == name and ("model", model) in labels
        )

    def buckets(self, name: str, model: str) -> list[tuple[float, float]]:
        """(upper bound, durations up to it) of a histogram, by bound; the last bound is infinite."""
        return sorted(
            (float(dict(labels)["le"]), value)
            for (each, labels), value in self.samples.items()
            if each == f"{name}_bucket" and ("model", model) in labels
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Two readings of one server, and what happened to one model between them."""

    before: Reading
    after: Reading
    model: str

    def now(self, name: str) -> float:
        """What a sample of the model is at the end."""
        return self.after.value(name, model=self.model)

    def sum_now(self, name: str) -> float:
        """The same, summed over the sample's other labels."""
        return self.after.total(name, self.model)

    def grown(self, name: str, **labels: str) -> float:
        """How much a counter has grown; a server that was started again counts from zero."""
        end = self.after.value(name, model=self.model, **labels)
        begin = self.before.value(name, model=self.model, **labels)
        return end if end < begin else end - begin

    def rate(self, name: str, **labels: str) -> float:
        """Growth in a second."""
        return self.grown(name, **labels) / max(self.after.at - self.before.at, 1e-9)

    def ratio(self, name: str, of: str) -> float | None:
        """Growth of one counter for each step that another has grown; None where that stood still."""
        whole = self.grown(of)
        return self.grown(name) / whole if whole else None

    def quantile(self, name: str, share: float) -> float | None:
        """The duration that `share` of those in between did not exceed, estimated; None where there was none.

        Within a bucket, durations are taken to be spread evenly. One beyond the last bound is infinite.
        """
        after = self.after.buckets(name, self.model)
        before = dict(self.before.buckets(name, self.model))
        counts = [(bound, value - before.get(bound, 0.0)) for bound, value in after]
        if any(count < 0 for _, count in counts):
            counts = after
        return _quantile(counts, share)


def _quantile(counts: Sequence[tuple[float, float]], share: float) -> float | None:
    if not counts or not counts[-1][1]:
        return None
    wanted = share * counts[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in counts:
        if count >= wanted and count > below:
            inside = (wanted - below) / (count - below)
            return bound if math.isinf(bound) else lower + (bound - lower) * inside
        lower, below = bound, count
    return None
