"""How far two samples of answers are apart: by logprobs, or by texts where there are none.

By logprobs: the mean over tokens of how far the mean logprob of each moved (arXiv 2512.03816, section 3).
By texts: the maximum mean discrepancy with a kernel that counts places where two texts have the same
character (arXiv 2410.20247, section 3). Prompts count alike in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from transom.client.watching.permutation import Floats, contrasts

Logprobs = dict[str, float]
"""The likeliest first tokens of an answer, and their logprobs."""


class Moved(NamedTuple):
    """A token whose mean logprob moved."""

    token: str
    before: float
    after: float

    @property
    def distance(self) -> float:
        """How far, in nats."""
        return abs(self.after - self.before)


@dataclass(frozen=True, slots=True)
class LogprobShift:
    """How far the mean logprob of each token moved.

    Args:
        tokens: of each prompt, those that any round saw.
        values: of each prompt, logprobs [rounds, tokens]; what a round did not see has the smallest that it
            saw, which its true logprob cannot exceed.
        tolerance: nats that a mean may move without counting.
    """

    tokens: tuple[tuple[str, ...], ...]
    values: tuple[Floats, ...]
    tolerance: float = 0.0

    @classmethod
    def of(cls, rounds: Sequence[Sequence[Logprobs]], tolerance: float = 0.0) -> LogprobShift:
        """Arrange rounds of answers, one for each prompt, for the test."""
        tokens = tuple(
            tuple(sorted({token for answer in answers for token in answer}))
            for answers in zip(*rounds, strict=True)
        )
        values = tuple(
            np.array([[answer.get(token, min(answer.values())) for token in known] for answer in answers])
            for known, answers in zip(tokens, zip(*rounds, strict=True), strict=True)
        )
        return cls(tokens, values, tolerance)

    def __call__(self, weights: Floats) -> Floats:
        """Nats for each contrast [divisions]."""
        result: Floats = np.mean(list(self.by_prompt(weights)), axis=0)
        return result

    def by_prompt(self, weights: Floats) -> Iterator[Floats]:
        """The same for each prompt alone."""
        for values in self.values:
            # What is equal in all rounds has to come out as 0, and not as a rounding error.
            moved = np.abs(weights @ (values - values[0]))
            yield np.maximum(moved - self.tolerance, 0.0).mean(axis=1)

    def moved(self, prompt: int, before: int, most: int) -> list[Moved]:
        """The tokens of a prompt that moved furthest, in that order."""
        values = self.values[prompt]
        means = zip(values[:before].mean(axis=0), values[before:].mean(axis=0), strict=True)
        found = [
            Moved(token, float(old), float(new))
            for token, (old, new) in zip(self.tokens[prompt], means, strict=True)
        ]
        return sorted((each for each in found if each.distance), key=lambda each: -each.distance)[:most]


@dataclass(frozen=True, slots=True)
class TextDiscrepancy:
    """The squared maximum mean discrepancy of texts, biased, with a Hamming kernel over characters.

    Args:
        kernels: of each prompt, the share of places at which two rounds' texts agree [rounds, rounds].
    """

    kernels: tuple[Floats, ...]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[str]]) -> TextDiscrepancy:
        """Arrange rounds of answers, one for each prompt, for the test."""
        return cls(tuple(_agreement(texts) for texts in zip(*rounds, strict=True)))

    def __call__(self, weights: Floats) -> Floats:
        """The mean over prompts, for each contrast [divisions]; between 0 and 2."""
        whole: Floats = np.mean(self.kernels, axis=0)
        return _quadratic(whole, weights)

    def by_prompt(self, weights: Floats) -> Iterator[Floats]:
        """The same for each prompt alone."""
        return (_quadratic(kernel, weights) for kernel in self.kernels)


def observed(before: int, after: int) -> Floats:
    """The contrast of what happened: first `before` rounds, then `after` more."""
    return contrasts(np.arange(before, before + after)[None], before + after)


def _quadratic(kernel: Floats, weights: Floats) -> Floats:
    # Contrasts add up to 0: taking the same off every entry changes nothing but rounding errors.
    result: Floats = np.einsum("ij,ij->i", weights @ (kernel - kernel[0, 0]), weights)
    return np.maximum(result, 0.0)


def _agreement(texts: Sequence[str]) -> Floats:
    """[texts, texts]: at how many places of the longest text two of them agree; both ended counts too."""
    width = max(1, *(len(text) for text in texts))
    codes = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ord(character) + 1 for character in text]
    agreement: Floats = (codes[:, None] == codes[None]).mean(axis=2)
    return agreement
