"""How far honest answers of one engine profile may lie from another's, measured beforehand and logged.

Two profiles of one model round differently. An answer of the one is judged by the other: at each token, how
far it was from being drawn (the margin of Token-DiFR, arXiv 2511.20621), and how far both logprobs are apart.
What honest answers showed bounds what an honest answer may show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.canonical import canonical_bytes, decimal
from transom.schema.record import MARGIN_CLIP

LOGPROB_CLIP = 0.5
"""A difference of logprobs counts for no more, in nats."""

LEAST_TOKENS = 20_000
"""Of a calibration."""

ALPHA = 1e-6
"""Chance that an honest answer is found outside, for each of both bounds, if its tokens are independent."""


class Spread(BaseModel):
    """Mean and standard deviation of a number that lies between 0 and a largest value, as decimal strings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: str
    deviation: str
    most: str

    @classmethod
    def of(cls, values: Sequence[float], most: float) -> Self:
        """Of some values; larger ones, and what is not finite, count as the largest."""
        kept = [min(value, most) if math.isfinite(value) else most for value in values]
        mean = math.fsum(kept) / len(kept)
        square = math.fsum((value - mean) ** 2 for value in kept) / max(1, len(kept) - 1)
        return cls(mean=decimal(mean), deviation=decimal(math.sqrt(square)), most=decimal(most))

    def bound(self, count: int, known: int, alpha: float) -> float:
        """What the mean of `count` values exceeds with a chance of at most `alpha`, Bernstein's inequality.

        Args:
            count: values in the mean that is judged.
            known: values that mean and deviation were measured on; the mean may be off by as much again.
            alpha: the chance.
        """
        odds, once = math.log(1 / alpha), 1 / count + 1 / known
        spread = float(self.deviation) * math.sqrt(2 * odds * once)
        return float(self.mean) + spread + float(self.most) * odds * once / 3

    def tells(self, count: int, known: int, alpha: float) -> bool:
        """Whether the mean of so many values can be outside of the bound at all."""
        return self.bound(count, known, alpha) < float(self.most)

    def is_sound(self, most: float) -> bool:
        """Whether this can be the spread of values from 0 to `most`."""
        try:
            mean, deviation, own = float(self.mean), float(self.deviation), float(self.most)
        except ValueError:
            return False
        # No values between 0 and the largest deviate by more than half of it, but for the sample's factor.
        return own == most and 0 <= mean <= most and 0 <= deviation <= 0.51 * most

    def holds(self, values: Sequence[float], known: int, alpha: float) -> bool:
        """Whether the mean of these values lies within the bound."""
        if not values:
            return True
        most = float(self.most)
        kept = [min(value, most) if math.isfinite(value) else most for value in values]
        return math.fsum(kept) / len(kept) <= self.bound(len(kept), known, alpha)


class Calibration(BaseModel):
    """A document of the log: what honest answers of a deployment show when another judges them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["urn:transom:calibration:v1"] = "urn:transom:calibration:v1"
    answered: str = Field(description="Digest of the deployment that answered")
    judged: str = Field(description="Digest of the deployment that judged the answers")
    tokens: int = Field(ge=LEAST_TOKENS, description="Generated tokens that were judged")
    answers: int = Field(ge=1)
    differing: int = Field(ge=0, description="Tokens in whose place the other would have drawn another")
    infinite: int = Field(ge=0, description="Of those, the ones that a filter had removed for the other")
    margin: Spread = Field(description="Of the margins, in logits")
    logprob: Spread = Field(description="Of the distance between both logprobs of a token, in nats")
    alpha: str = Field(description="Chance of a false alarm, for each of the two bounds")
    made: str = Field(description="RFC 3339, UTC")

    @property
    def content(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.model_dump())

    def departs(self, margins: Sequence[float], distances: Sequence[float]) -> str | None:
        """What of an answer is further off than an honest answer would be: `MARGIN` or `LOGPROBS`.

        `SHORT` where it has so few tokens that whatever they are would be within the bound.
        """
        if not self.infinite and any(not math.isfinite(margin) for margin in margins):
            return "MARGIN"  # no honest token was one that a filter had removed
        if not self.margin.holds(margins, self.tokens, ALPHA):
            return "MARGIN"
        if not self.logprob.holds(distances, self.tokens, ALPHA):
            return "LOGPROBS"
        return None if margins and self.margin.tells(len(margins), self.tokens, ALPHA) else "SHORT"

    @property
    def is_sound(self) -> bool:
        """Whether its numbers are such as can be measured, and its bounds those that are held to here."""
        return (
            self.margin.is_sound(MARGIN_CLIP)
            and self.logprob.is_sound(LOGPROB_CLIP)
            and self.alpha == decimal(ALPHA)
            and max(self.differing, self.infinite) <= self.tokens
        )


def measured(
    answered: str, judged: str, answers: Sequence[Sequence[tuple[float, float]]], differing: int, made: str
) -> Calibration:
    """What some answers show.

    Args:
        answered: digest of the deployment that gave them.
        judged: digest of the one that judged them.
        answers: (margin, distance of logprobs) of each token of each answer.
        differing: tokens that would not have been drawn.
        made: RFC 3339, UTC.

    Raises:
        ValueError: there are too few tokens.
    """
    margins = [margin for answer in answers for margin, _ in answer]
    distances = [distance for answer in answers for _, distance in answer]
    return Calibration(
        answered=answered,
        judged=judged,
        tokens=len(margins),
        answers=len(answers),
        differing=differing,
        infinite=sum(not math.isfinite(margin) for margin in margins),
        margin=Spread.of(margins, MARGIN_CLIP),
        logprob=Spread.of(distances, LOGPROB_CLIP),
        alpha=decimal(ALPHA),
        made=made,
    )
