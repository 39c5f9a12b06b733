"""Measures of one row of logits over the whole vocabulary: entropy, mass, divergence, all logprobs.

Like everything here a function of the row and its parameters alone. Sums are float64, over lanes, each of
them one chain in the order of the token ids.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.compile import kernel

_LANES = 256
"""As many sums side by side, so that a processor can do several at a time."""

_FAINT = 87.0
"""Nats below the peak beyond which a weight is not the exponential of its logit, and is as good as 0."""

_DEEP = -1e30
"""In the place of a logit of -inf, which no weight of 0 may meet."""


@kernel
def _folded(lanes: NDArray[np.float64]) -> float:
    total = 0.0
    for lane in lanes:
        total += lane
    return total


@kernel
def summed(weights: Floats) -> float:
    """Their sum."""
    lanes = np.zeros(_LANES)
    for start in range(0, weights.shape[0], _LANES):
        part = weights[start : start + _LANES]
        for i in range(part.shape[0]):
            lanes[i] += float(part[i])
    return _folded(lanes)


@kernel
def entropy(logits: Floats, peak: np.float32, weights: Floats, total: float) -> float:
    """Entropy in nats of a distribution whose `weights` are exp(logits - peak), `total` in sum."""
    lanes = np.zeros(_LANES)
    for start in range(0, logits.shape[0], _LANES):
        part, own = logits[start : start + _LANES], weights[start : start + _LANES]
        for i in range(part.shape[0]):
            # Weights are never quite 0, and a logit may be -inf: what is too faint to count has an end.
            lanes[i] += float(own[i]) * min(float(peak) - float(part[i]), 2.0 * _FAINT)
    return math.log(total) + _folded(lanes) / total


@kernel
def mass(logits: Floats, weights: Floats, total: float, k: int) -> float:
    """Probability that the `k` most likely tokens hold together."""
    if k >= logits.shape[0]:
        return 1.0
    least, count = _reached_by(logits, k)
    lanes, tied = np.zeros(_LANES), np.float32(0.0)
    for start in range(0, logits.shape[0], _LANES):
        part, own = logits[start : start + _LANES], weights[start : start + _LANES]
        for i in range(part.shape[0]):
            lanes[i] += float(own[i] if part[i] >= least else np.float32(0.0))
    for i in range(logits.shape[0] if count > k else 0):
        tied = weights[i] if logits[i] == least else tied
    # Those that are tied weigh the same, whichever of them are too many.
    return min((_folded(lanes) - (count - k) * float(tied)) / total, 1.0)


@kernel
def _reached_by(logits: Floats, k: int) -> tuple[np.float32, int]:
    """The highest number that `k` logits reach, and how many do; or a lower one, if these are the same `k`.

    No sort: that would take long where `k` is large.
    """
    # As integers, float32 numbers that are not negative have the same order; of the others all but the sign
    # is turned over.
    bits = np.empty(1, np.int32)
    value = bits.view(np.float32)
    value[0] = np.inf
    high = int(bits[0])
    low, reached = -1 - high, logits.shape[0]
    while low < high and reached != k:
        middle = low + (high - low + 1) // 2
        bits[0] = middle if middle >= 0 else middle ^ 0x7FFFFFFF
        floor, count = value[0], np.int32(0)
        for i in range(logits.shape[0]):
            count += np.int32(logits[i] >= floor)
        if count >= k:
            low, reached = middle, int(count)
        else:
            high = middle - 1
    bits[0] = low if low >= 0 else low ^ 0x7FFFFFFF
    return value[0], reached


@kernel
def divergence(
    logits: Floats,
    peak: np.float32,
    log_total: float,
    shaped: Floats,
    favourite: int,
    temperature: float,
    weights: Floats,
    limit: tuple[np.float32, int],
) -> float:
    """Kullback-Leibler divergence in nats of what a token is drawn from, from what the model says.

    Args:
        logits: the model's own row.
        peak: its highest logit.
        log_total: the logarithm of its `summed` weights.
        shaped: the row that is drawn from.
        favourite: the token with its highest logit.
        temperature: above 0.
        weights: exp((shaped - highest) / temperature).
        limit: the last token that the filters keep, see `draw.boundary`.
    """
    floor, floor_id = limit
    slope, top = min(1.0 / max(temperature, 1e-37), 1e30), float(shaped[favourite])
    totals, gains = np.zeros(_LANES), np.zeros(_LANES)
    for start in range(0, logits.shape[0], _LANES):
        for i in range(min(_LANES, logits.shape[0] - start)):
            token = start + i
            logit = shaped[token]
            height = max((float(logit) - top) * slope, _DEEP)
            depth = max(float(logits[token]) - float(peak), _DEEP)
            kept = logit > floor or (logit == floor and token <= floor_id)
            weight = float(weights[token]) if kept and height >= -_FAINT else 0.0
            totals[i] += weight
            gains[i] += weight * (height - depth)
    total = _folded(totals)
    return max(_folded(gains) / total - math.log(total) + log_total, 0.0)


@kernel
def log_softmax(logits: Floats, peak: np.float32, log_total: float, out: Floats) -> None:
    """out[i] = the logprob of token i: float64 arithmetic, rounded to float32."""
    for i in range(logits.shape[0]):
        out[i] = np.float32((float(logits[i]) - float(peak)) - log_total)
