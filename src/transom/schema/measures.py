"""Measures of a distribution: what science mostly wants of the whole vocabulary, in a few numbers a token."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Which measures to report with a token. Their order here is their order in a record."""

    entropy: bool = False
    """Of the model's own distribution, in nats."""
    rank: bool = False
    """Of the token in it; 1 is the most likely, ties count the lower token id first."""
    surprisal: bool = False
    """Of the token, in nats: its logprob without the sign."""
    kl: bool = False
    """Kullback-Leibler divergence of the distribution that the token was drawn from (after penalties, bias,
    temperature and filters) from the model's own, in nats; this way around it is always finite."""
    top_k_mass: int = 0
    """The k of the probability that the k most likely tokens hold together; 0 reports none."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are asked for, in order."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    @property
    def numbers(self) -> int:
        """How many numbers they tell of a row of logits, beside the token's logprob.

        A position has one entropy only, and a rank is an order and no number; so neither counts. But whoever
        asks about one position with every k, or at many temperatures, has its whole row in the end.
        """
        return (self.top_k_mass > 0) + self.kl


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured at a token's place, beside its rank and its logprob. None for what was not asked."""

    entropy: float | None = None
    top_k_mass: float | None = None
    kl: float | None = None
