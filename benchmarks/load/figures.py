"""Percentiles, medians and ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

Figures = dict[str, float]
"""Figures of one round, by name; the name ends with the unit."""


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which `percent` per cent of `values` lie, between neighbours in proportion.

    NaN where there is no value.
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percentiles_ms(name: str, seconds: Sequence[float], wanted: Sequence[int] = (50, 95, 99)) -> Figures:
    """Percentiles of durations, in milliseconds, as figures `{name}_p50_ms` and so on."""
    if not seconds:
        return {}
    return {f"{name}_p{percent}_ms": 1e3 * percentile(seconds, percent) for percent in wanted}


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """The median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for each in rounds for name in each)
    return {name: statistics.median(each[name] for each in rounds if name in each) for name in names}


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """`ours` over `theirs`; None where either is absent, not a number, or the divisor is nothing."""
    if ours is None or theirs is None or not theirs or math.isnan(ours) or math.isnan(theirs):
        return None
    return ours / theirs


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the straight line that fits (x, y) best by least squares; 0 for fewer than two points."""
    if len(points) < 2 or len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope
