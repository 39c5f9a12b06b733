"""A permutation test of whether two samples come from the same source.

If nothing changed, it does not matter which rounds were taken before and which after: every way of
dividing them is as likely as the one that happened. The p-value is the share of divisions whose statistic
is at least as large as the one observed; that one counts among them, so it is never 0 and the test never
says "changed" more often than it claims, ties or not (Phipson and Smyth 2010, arXiv 1603.05766).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""From contrasts [divisions, rounds] to one number each [divisions]: 0 for no difference, more for more.

A contrast weighs rounds after by 1 / after, and rounds before by -1 / before.
"""

MOST_DIVISIONS = 1_000_000
"""Up to this many, all divisions are tried; beyond, so many are drawn."""

_BATCH = 20_000

_SLACK = 1e-9
"""Sums in another order differ in their last bits; what differs by less than this counts as a tie."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test found."""

    statistic: float
    p_value: float
    divisions: int
    """How many the observed one was compared with, itself included."""
    exact: bool
    """Whether these were all that there are."""


def attainable(before: int, after: int, most: int = MOST_DIVISIONS) -> float:
    """The smallest p-value that so many rounds can give, however large the change."""
    divisions = min(comb(before + after, after), most)
    # Of two halves of the same size, each division has a mirror image with the same statistic.
    return (2 if before == after and divisions < most else 1) / divisions


def permutation_test(
    statistic: Statistic,
    before: int,
    after: int,
    *,
    generator: np.random.Generator,
    most: int = MOST_DIVISIONS,
) -> Verdict:
    """Test whether the first `before` rounds and the `after` that follow could be exchanged.

    Args:
        statistic: of contrasts over all rounds, in the order in which they were taken.
        before: rounds of the first sample, at least 1.
        after: rounds of the second, at least 1.
        generator: draws divisions where there are too many to try each.
        most: divisions that are tried.
    """
    rounds = before + after
    observed = float(statistic(contrasts(np.arange(before, rounds)[None], rounds))[0])
    if observed <= 0:
        # No division is less apart than not at all: every one counts as at least as far.
        return Verdict(0.0, 1.0, 1, exact=True)
    exact = comb(rounds, after) <= most
    batches = _all(rounds, after) if exact else _drawn(rounds, after, most - 1, generator)
    threshold = observed - _SLACK * (abs(observed) + _SLACK)
    reached, tried = (0, 0) if exact else (1, 1)
    for chosen in batches:
        reached += int(np.count_nonzero(statistic(contrasts(chosen, rounds)) >= threshold))
        tried += len(chosen)
    return Verdict(observed, reached / tried, tried, exact)


def contrasts(chosen: NDArray[np.intp], rounds: int) -> Floats:
    """The contrasts of divisions.

    Args:
        chosen: the rounds that count as after [divisions, after].
        rounds: how many there are in all.
    """
    after = chosen.shape[1]
    weights = np.full((len(chosen), rounds), -1.0 / (rounds - after))
    np.put_along_axis(weights, chosen, 1.0 / after, axis=1)
    return weights


def _all(rounds: int, after: int) -> Iterator[NDArray[np.intp]]:
    every = combinations(range(rounds), after)
    while batch := list(islice(every, _BATCH)):
        flat = np.fromiter(chain.from_iterable(batch), np.intp, len(batch) * after)
        yield flat.reshape(-1, after)


def _drawn(rounds: int, after: int, count: int, generator: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    for start in range(0, count, _BATCH):
        order = generator.random((min(_BATCH, count - start), rounds))
        yield np.argpartition(order, after - 1, axis=1)[:, :after]
