"""Measures of one row of logits over the whole vocabulary: entropy, mass, divergence, all logprobs.

Like everything here a function of the row and its parameters alone. Sums are float64, each one chain in the
order of the token ids, or of falling probability.
"""

from __future__ import annotations

import math

import numpy as np

from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.draw import most_likely

_FAINT = 87.0
"""Nats below the peak beyond which a weight is not the exponential of its logit, and is as good as 0."""


@kernel
def summed(weights: Floats) -> float:
    """Their sum."""
    total = 0.0
    for i in range(weights.shape[0]):
        total += float(weights[i])
    return total


@kernel
def entropy(logits: Floats, peak: np.float32, weights: Floats, total: float) -> float:
    """Entropy in nats of a distribution whose `weights` are exp(logits - peak), `total` in sum."""
    depth = 0.0
    for i in range(logits.shape[0]):
        # A logit may be -inf, which no weight may meet.
        depth += float(weights[i]) * min(float(peak) - float(logits[i]), 2.0 * _FAINT)
    return math.log(total) + depth / total


@kernel
def mass(logits: Floats, peak: np.float32, weights: Floats, total: float, k: int) -> float:
    """Probability that the `k` most likely tokens hold together, ties by lower token id."""
    if k >= logits.shape[0]:
        return 1.0
    order = most_likely(logits, peak, 1.0, weights, k, 0.0)
    held = 0.0
    for i in range(k):
        held += float(weights[order[i]])
    return min(held / total, 1.0)


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
    slope = min(1.0 / max(temperature, 1e-37), 1e30)
    total = gain = 0.0
    for i in range(logits.shape[0]):
        logit = shaped[i]
        height = (float(logit) - float(shaped[favourite])) * slope
        if height < -_FAINT or logit < floor or (logit == floor and i > floor_id):
            continue
        weight = float(weights[i])
        total += weight
        gain += weight * (height - (float(logits[i]) - float(peak)))
    return max(gain / total - math.log(total) + log_total, 0.0)


@kernel
def log_softmax(logits: Floats, peak: np.float32, log_total: float, out: Floats) -> None:
    """out[i] = the logprob of token i: float64 arithmetic, rounded to float32."""
    for i in range(logits.shape[0]):
        out[i] = np.float32((float(logits[i]) - float(peak)) - log_total)
