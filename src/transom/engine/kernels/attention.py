"""Paged attention: each query row attends to its own past, page by page, in one fixed order.

Batch invariance holds by construction. What a row computes is a function of its query, its position and the
keys and values it may see; no shape, tile or neighbour enters. A prefill row and a decode row at the same
position run the same instructions.

The cache of a layer is two arrays. Keys lie as [page, kv_head, dim, slot], so that the scores of a page's
slots accumulate side by side over `dim`; values as [page, kv_head, slot, dim], so that an output accumulates
side by side over slots in order. Both inner loops are contiguous and neither needs a horizontal sum.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.compile import inline, parallel_kernel

PAGE = 16
"""Tokens in a page of the cache."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_UNDERFLOW = np.float32(-87.0)


@inline
def exp_in_place(values: Floats, shift: np.float32, exponents: Ints) -> None:
    """Values = exp(values - shift) for values <= shift, to about 1 ulp.

    Cephes' expf polynomial (Moshier 1989), written out so that the compiler can vectorise it and so that no
    mathematics library, whose bits differ between machines, takes part. `exponents` is scratch.
    """
    for i in range(values.shape[0]):
        x = max(values[i] - shift, _UNDERFLOW)
        # x <= 0, so truncation after subtracting a half rounds to nearest.
        n = np.int32(x * _LOG2E - np.float32(0.5))
        r = x - np.float32(n) * _LN2_HIGH - np.float32(n) * _LN2_LOW
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        values[i] = p * r * r + r + np.float32(1.0)
        exponents[i] = n
    bits = values.view(np.int32)
    for i in range(bits.shape[0]):
        bits[i] += exponents[i] << np.int32(23)


@inline
def _score_page(query: Floats, block: Floats, scores: Floats) -> None:
    """scores[slot] = query · block[:, slot], eight dimensions a turn to keep the adders busy."""
    for slot in range(PAGE):
        scores[slot] = np.float32(0.0)
    dim = query.shape[0]
    whole = dim - dim % 8
    for d in range(0, whole, 8):
        for slot in range(PAGE):
            a = query[d] * block[d, slot] + query[d + 1] * block[d + 1, slot]
            b = query[d + 2] * block[d + 2, slot] + query[d + 3] * block[d + 3, slot]
            c = query[d + 4] * block[d + 4, slot] + query[d + 5] * block[d + 5, slot]
            e = query[d + 6] * block[d + 6, slot] + query[d + 7] * block[d + 7, slot]
            scores[slot] += (a + b) + (c + e)
    for d in range(whole, dim):
        for slot in range(PAGE):
            scores[slot] += query[d] * block[d, slot]


@inline
def _scale(scores: Floats, low: int, high: int, scale: np.float32, softcap: np.float32) -> None:
    for i in range(scores.shape[0]):
        scores[i] *= scale
    if softcap > 0:
        for i in range(low, high):
            scores[i] = softcap * np.float32(math.tanh(scores[i] / softcap))


@inline
def _softmax(scores: Floats, low: int, high: int, sink: np.float32, exponents: Ints) -> np.float32:
    """Turn scores[low:high] into weights, zero the others, and return the sum of the weights.

    A finite `sink` joins the sum alone (attention sinks as in gpt-oss).
    """
    peak = sink
    for i in range(low, high):
        peak = max(peak, scores[i])
    exp_in_place(scores[low:high], peak, exponents)
    scores[:low] = np.float32(0.0)
    scores[high:] = np.float32(0.0)
    a = b = c = d = np.float32(0.0)
    for i in range(0, scores.shape[0], 4):
        a += scores[i]
        b += scores[i + 1]
        c += scores[i + 2]
        d += scores[i + 3]
    total = (a + b) + (c + d)
    if sink > -np.inf:
        total += np.float32(math.exp(sink - peak))
    return total


@inline
def _weigh_page(weights: Floats, block: Floats, out: Floats) -> None:
    """Out += weights · block, four slots a turn. Masked slots weigh exactly nothing."""
    for slot in range(0, PAGE, 4):
        v, w, x, y = weights[slot], weights[slot + 1], weights[slot + 2], weights[slot + 3]
        for d in range(out.shape[0]):
            a = v * block[slot, d] + w * block[slot + 1, d]
            b = x * block[slot + 2, d] + y * block[slot + 3, d]
            out[d] += a + b


@parallel_kernel
def attend(
    query: Floats,
    keys: Floats,
    values: Floats,
    tables: Ints,
    row_sequence: Ints,
    row_position: Ints,
    scale: np.float32,
    window: int,
    softcap: np.float32,
    sinks: Floats,
    out: Floats,
) -> None:
    """Attention of `rows` packed query rows.

    Args:
        query: [rows, heads, dim].
        keys: [pages, kv_heads, dim, PAGE].
        values: [pages, kv_heads, PAGE, value_dim].
        tables: [sequences, pages of the longest]; page numbers in the cache.
        row_sequence: [rows], which table a row uses.
        row_position: [rows], position of the row; it sees the positions up to its own.
        scale: multiplies the scores.
        window: how many positions a row sees, itself included; 0 for all.
        softcap: scores become `softcap * tanh(scores / softcap)`; 0 for none.
        sinks: [heads], a learned score without a value, -inf for none.
        out: [rows, heads, value_dim], written.
    """
    rows, heads, _ = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    half = (rows + 1) // 2
    for work in numba.prange(rows * kv_heads):
        # Late positions cost more than early ones: deal the rows out like cards, evens first.
        turn = work // kv_heads
        row = 2 * turn if turn < half else 2 * (turn - half) + 1
        kv_head = work % kv_heads
        position = row_position[row]
        table = tables[row_sequence[row]]
        start = max(0, position - window + 1) if window > 0 else 0
        first = start // PAGE
        last = position // PAGE
        low = start - first * PAGE
        high = position + 1 - first * PAGE
        pages = last - first + 1
        scores = np.empty((group, pages * PAGE), np.float32)
        exponents = np.empty(pages * PAGE, np.int32)
        totals = np.empty(group, np.float32)
        first_head = kv_head * group
        # Page by page for all heads of the group, so that a page is fetched once.
        for page in range(pages):
            block = keys[table[first + page], kv_head]
            for member in range(group):
                part = scores[member, page * PAGE : (page + 1) * PAGE]
                _score_page(query[row, first_head + member], block, part)
        for member in range(group):
            line = scores[member]
            _scale(line, low, high, scale, softcap)
            totals[member] = _softmax(line, low, high, sinks[first_head + member], exponents)
            out[row, first_head + member] = np.float32(0.0)
        for page in range(pages):
            block = values[table[first + page], kv_head]
            for member in range(group):
                part = scores[member, page * PAGE : (page + 1) * PAGE]
                _weigh_page(part, block, out[row, first_head + member])
        for member in range(group):
            out[row, first_head + member] /= totals[member]


@parallel_kernel
def store(
    key: Floats,
    value: Floats,
    tables: Ints,
    row_sequence: Ints,
    row_position: Ints,
    keys: Floats,
    values: Floats,
) -> None:
    """Write the key [rows, kv_heads, dim] and value of each row into its slot of the cache."""
    for row in numba.prange(key.shape[0]):
        position = row_position[row]
        page = tables[row_sequence[row], position // PAGE]
        slot = position % PAGE
        for head in range(key.shape[1]):
            keys[page, head, :, slot] = key[row, head]
            values[page, head, slot, :] = value[row, head]


def no_sinks(heads: int) -> Floats:
    """Sinks that change nothing."""
    return np.full(heads, -np.inf, np.float32)
