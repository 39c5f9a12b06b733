"""Scores, probabilities and what comes of them, as whole matrices; sums in one order, row by row."""

from __future__ import annotations

import math

import numba
import numpy as np

from transom.engine.kernels.arrays import Floats, Longs
from transom.engine.kernels.compile import kernel, parallel_kernel


@parallel_kernel
def scores(
    query: Floats, keys: Floats, positions: Longs, shape: tuple[np.float32, int, np.float32], out: Floats
) -> None:
    """Scaled dot products, capped, of what each row sees.

    Args:
        query: [rows, heads, dim].
        keys: [kv_heads, slots, dim].
        positions: [rows].
        shape: scale, window and cap; see `attention.attend`.
        out: [rows, heads, keys], written where a row sees a key.
    """
    scale, window, cap = shape
    group = query.shape[1] // keys.shape[0]
    for row in numba.prange(query.shape[0]):
        end = positions[row] + 1
        first = max(0, end - window) if window > 0 else 0
        for head in range(query.shape[1]):
            for key in range(first, end):
                total = np.float32(0.0)
                for d in range(query.shape[2]):
                    total += query[row, head, d] * keys[head // group, key, d]
                total *= scale
                if cap > 0:
                    total = cap * np.float32(math.tanh(total / cap))
                out[row, head, key] = total


@parallel_kernel
def probabilities(scores: Floats, sinks: Floats) -> None:
    """The softmax of each row and head, in place, beside a score without a key, -inf for none."""
    for row in numba.prange(scores.shape[0]):
        for head in range(scores.shape[1]):
            _soften(scores[row, head], sinks[head])


@kernel
def _soften(line: Floats, sink: np.float32) -> None:
    largest = sink
    for value in line:
        largest = max(largest, value)
    total = math.exp(sink - largest)
    for i in range(line.shape[0]):
        line[i] = math.exp(line[i] - largest)
        total += line[i]
    for i in range(line.shape[0]):
        line[i] /= total


@parallel_kernel
def mix(probabilities: Floats, values: Floats, out: Floats) -> None:
    """Weigh values [kv_heads, slots, dim] by [rows, heads, keys]; added to [rows, heads, dim]."""
    group = probabilities.shape[1] // values.shape[0]
    slots = min(probabilities.shape[2], values.shape[1])
    for row in numba.prange(probabilities.shape[0]):
        for head in range(probabilities.shape[1]):
            for key in range(slots):
                weight = probabilities[row, head, key]
                if weight != 0:
                    for d in range(values.shape[2]):
                        out[row, head, d] += weight * values[head // group, key, d]
