"""What stands between the matrix products of a decoder layer: norm, rotary embedding, gated activation.

Each kernel works row by row and rounds every operation on its own, so a row's result is the same whether one
thread computes it or several do, and whoever is in the batch. Few rows are not worth waking a thread for.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from transom.engine.kernels.arrays import Floats, Ints, Operand
from transom.engine.kernels.bfloat16 import hand_over
from transom.engine.kernels.cache import PAGE, Cache, put_key, put_value
from transom.engine.kernels.compile import kernel, parallel_kernel, uncounted_kernel
from transom.engine.kernels.elementary import LN2_HIGH, LN2_LOW, LOG2E, exp_near_zero

_FEW = 1 << 14
"""Numbers up to which one thread is faster than several."""

_BLOCK = 8
"""Rows that a thread takes at a time."""

_LIMIT = np.float32(87.0)
_ONE = np.float32(1.0)
_GELU = np.float32(2.0 * math.sqrt(2.0 / math.pi))
_CUBIC = np.float32(0.044715)


@uncounted_kernel
def _inverse_rms(row: Floats, eps: np.float32) -> np.float32:
    """1 / sqrt(mean(row²) + eps), summed over eight lanes in a fixed order."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    whole = row.shape[0] - row.shape[0] % 8
    for i in range(0, whole, 8):
        s0 += row[i] * row[i]
        s1 += row[i + 1] * row[i + 1]
        s2 += row[i + 2] * row[i + 2]
        s3 += row[i + 3] * row[i + 3]
        s4 += row[i + 4] * row[i + 4]
        s5 += row[i + 5] * row[i + 5]
        s6 += row[i + 6] * row[i + 6]
        s7 += row[i + 7] * row[i + 7]
    for i in range(whole, row.shape[0]):
        s0 += row[i] * row[i]
    total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    scale: np.float32 = _ONE / np.sqrt(total / np.float32(row.shape[0]) + eps)
    return scale


@kernel
def _norm_rows(
    residual: Floats, added: Floats, weight: Floats, eps: np.float32, out: Operand, first: int, end: int
) -> None:
    width = residual.shape[1]
    normed = np.empty(width, np.float32)
    for row in range(first, end):
        line = residual[row]
        if added.shape[0]:
            for i in range(width):
                line[i] += added[row, i]
        scale = _inverse_rms(line, eps)
        for i in range(width):
            normed[i] = line[i] * scale * weight[i]
        hand_over(normed, out[row])


@parallel_kernel
def _norm_many(residual: Floats, added: Floats, weight: Floats, eps: np.float32, out: Operand) -> None:
    count = residual.shape[0]
    for block in numba.prange((count + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        _norm_rows(residual, added, weight, eps, out, first, min(count, first + _BLOCK))


@kernel
def add(residual: Floats, added: Floats) -> None:
    """Add to the residual stream, in place; both [rows, width]."""
    for row in range(residual.shape[0]):
        for i in range(residual.shape[1]):
            residual[row, i] += added[row, i]


@kernel
def add_norm(residual: Floats, added: Floats, weight: Floats, eps: np.float32, out: Operand) -> None:
    """Add to the residual stream, in place, and norm it; all [rows, width], `added` perhaps empty."""
    if residual.size <= _FEW:
        _norm_rows(residual, added, weight, eps, out, 0, residual.shape[0])
    else:
        _norm_many(residual, added, weight, eps, out)


@kernel
def rms_norm(rows: Floats, weight: Floats, eps: np.float32, out: Operand) -> None:
    """Out = rows / rms(rows) * weight, [rows, width] (Zhang and Sennrich 2019)."""
    add_norm(rows, rows[:0], weight, eps, out)


@kernel
def _gate_row(gate: Floats, up: Floats, gelu: bool, powers: Ints, out: Floats) -> None:
    """Out = gate * sigmoid(z) * up, where z is `gate` (SiLU) or the tanh form's argument twice (GELU).

    sigmoid(z) = 1 / (1 + exp(-z)), with our own exponential, so that no mathematics library takes part.
    """
    for i in range(gate.shape[0]):
        z = gate[i]
        if gelu:
            z = z * (_ONE + _CUBIC * z * z) * _GELU
        x = min(max(-z, -_LIMIT), _LIMIT)
        # Truncation rounds to nearest once everything is shifted to be positive.
        n = np.int32(np.int32(x * LOG2E + np.float32(128.5)) - 128)
        r = x - np.float32(n) * LN2_HIGH - np.float32(n) * LN2_LOW
        out[i] = exp_near_zero(r)
        powers[i] = n
    # Times 2^n: added to the exponent's bits.
    bits = out.view(np.int32)
    for i in range(gate.shape[0]):
        bits[i] += powers[i] << np.int32(23)
    for i in range(gate.shape[0]):
        out[i] = gate[i] / (_ONE + out[i]) * up[i]


@kernel
def _gate_rows(gate_up: Floats, gelu: bool, out: Operand, first: int, end: int) -> None:
    width = gate_up.shape[1] // 2
    powers, gated = np.empty(width, np.int32), np.empty(width, np.float32)
    for row in range(first, end):
        _gate_row(gate_up[row, :width], gate_up[row, width:], gelu, powers, gated)
        hand_over(gated, out[row])


@parallel_kernel
def _gate_many(gate_up: Floats, gelu: bool, out: Operand) -> None:
    count = gate_up.shape[0]
    for block in numba.prange((count + _BLOCK - 1) // _BLOCK):
        _gate_rows(gate_up, gelu, out, block * _BLOCK, min(count, (block + 1) * _BLOCK))


@kernel
def gate(gate_up: Floats, gelu: bool, out: Operand) -> None:
    """[rows, 2 * width], gates first, to [rows, width]: SwiGLU, or GeGLU (by tanh) if `gelu`."""
    if gate_up.size <= 2 * _FEW:
        _gate_rows(gate_up, gelu, out, 0, gate_up.shape[0])
    else:
        _gate_many(gate_up, gelu, out)


@uncounted_kernel
def _rotate_head(
    head: Floats, weight: Floats, eps: np.float32, cos: Floats, sin: Floats, out: Floats
) -> None:
    """Out = the head, normed where `weight` is not empty, its first dimensions rotated (RoFormer, halves)."""
    for d in range(head.shape[0]):
        out[d] = head[d]
    if weight.shape[0] > 0:
        scale = _inverse_rms(head, eps)
        for d in range(head.shape[0]):
            out[d] = head[d] * scale * weight[d]
    half = cos.shape[0] // 2
    for d in range(half):
        first, second = out[d], out[d + half]
        out[d] = first * cos[d] - second * sin[d]
        out[d + half] = second * cos[d + half] + first * sin[d + half]


@uncounted_kernel
def _rotate_rows(
    qkv: Floats,
    rotation: tuple[Floats, Floats],
    norms: tuple[Floats, Floats, np.float32],
    places: tuple[Ints, Ints, Ints],
    cache: Cache,
    value_dim: int,
    query: Floats,
    rotated: Floats,
    first: int,
    end: int,
) -> None:
    """The rows from `first` to `end`; `rotated` [dim] is scratch."""
    tables, row_sequence, row_position = places
    q_weight, k_weight, eps = norms
    heads, dim = query.shape[1], query.shape[2]
    kv_heads = cache[0].shape[1]
    for row in range(first, end):
        line, cos, sin = qkv[row], rotation[0][row], rotation[1][row]
        page, slot = tables[row_sequence[row], row_position[row] // PAGE], row_position[row] % PAGE
        keys, values = cache[0][page], cache[1][page]
        for head in range(heads):
            _rotate_head(line[head * dim : (head + 1) * dim], q_weight, eps, cos, sin, query[row, head])
        for head in range(kv_heads):
            at = (heads + head) * dim
            _rotate_head(line[at : at + dim], k_weight, eps, cos, sin, rotated)
            put_key(rotated, keys[head], slot)
            at = (heads + kv_heads) * dim + head * value_dim
            put_value(line[at : at + value_dim], values[head], slot)


@parallel_kernel
def _rotate_many(
    qkv: Floats,
    rotation: tuple[Floats, Floats],
    norms: tuple[Floats, Floats, np.float32],
    places: tuple[Ints, Ints, Ints],
    cache: Cache,
    value_dim: int,
    query: Floats,
) -> None:
    count = qkv.shape[0]
    for block in numba.prange((count + _BLOCK - 1) // _BLOCK):
        rotated = np.empty(query.shape[2], np.float32)
        first, end = block * _BLOCK, min(count, (block + 1) * _BLOCK)
        _rotate_rows(qkv, rotation, norms, places, cache, value_dim, query, rotated, first, end)


@kernel
def rotate_and_store(
    qkv: Floats,
    rotation: tuple[Floats, Floats],
    norms: tuple[Floats, Floats, np.float32],
    places: tuple[Ints, Ints, Ints],
    cache: Cache,
    value_dim: int,
    query: Floats,
) -> None:
    """Norm and rotate the queries and keys of packed rows, and put keys and values into the cache.

    Args:
        qkv: [rows, (heads + kv_heads) * dim + kv_heads * value_dim]: queries, keys, values.
        rotation: cosines and sines, [rows, rotated dimensions].
        norms: weights [dim] of the query's and the key's norm, empty for none, and their epsilon.
        places: tables, sequence of each row, position of each row; see `attend`.
        cache: keys and values of the layer, written.
        value_dim: dimensions of a value.
        query: [rows, heads, dim], written.
    """
    if qkv.size <= _FEW:
        rotated = np.empty(query.shape[2], np.float32)
        _rotate_rows(qkv, rotation, norms, places, cache, value_dim, query, rotated, 0, qkv.shape[0])
    else:
        _rotate_many(qkv, rotation, norms, places, cache, value_dim, query)
