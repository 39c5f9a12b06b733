"""A decoder layer and its halves, put together from products, attention and what lies between.

Each is one call from Python, whose own calls cost a fifth of a step with one sequence.
"""

from __future__ import annotations

import numpy as np

from transom.engine.kernels.arrays import Floats, Ints, Longs, Operand, Panels
from transom.engine.kernels.attention import attend
from transom.engine.kernels.bfloat16 import as_operand, empty_operand
from transom.engine.kernels.cache import Cache
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.fused import add, add_norm, gate, rms_norm, rotate_and_store
from transom.engine.kernels.product import multiply

Factor = tuple[Panels, Floats, int]
"""Panels and bias of a product, and how many columns it gives."""

NormOf = tuple[Floats, np.float32]
"""Weight and epsilon of an RMSNorm; an empty weight for none."""

Place = tuple[tuple[Ints, Ints, Ints], Ints, tuple[Floats, Floats]]
"""Where the rows of a forward belong, which are computed side by side, and their cosines and sines."""

Stacked = tuple[Cache, tuple[Floats, Longs, Floats], Floats, int, tuple[Floats, Floats, np.float32]]
"""`Heads` of all layers: each array has one dimension more in front."""

Heads = tuple[Cache, tuple[np.float32, int, np.float32], Floats, int, tuple[Floats, Floats, np.float32]]
"""Cache, shape, sinks and value dimensions of a layer's attention, and the norms of queries and keys."""


@kernel
def product(rows: Operand, factor: Factor, threads: int) -> Floats:
    """[rows, in], in any form, to [rows, out]."""
    panels, bias, width = factor
    out = np.empty((rows.shape[0], width), np.float32)
    multiply(as_operand(rows, panels), panels, bias, out, threads)
    return out


@kernel
def gated(rows: Operand, gate_up: Factor, down: Factor, gelu: bool, threads: int) -> Floats:
    """`down(act(gate(x)) * up(x))`, [rows, width] to the same."""
    inner = empty_operand(rows.shape[0], down[0])
    gate(product(rows, gate_up, threads), gelu, inner)
    return product(inner, down, threads)


@kernel
def attention(rows: Operand, qkv: Factor, last: Factor, heads: Heads, place: Place, threads: int) -> Floats:
    """Projections, rotation, storing, attention and the last projection, [rows, width] to the same.

    The output of a head has an even number of dimensions where products are of pairs.
    """
    cache, shape, sinks, value_dim, norms = heads
    places, blocks, rotation = place
    count = rows.shape[0]
    kv_heads = cache[0].shape[1]
    dim = (qkv[2] - kv_heads * value_dim) // (sinks.shape[0] + kv_heads)
    query = np.empty((count, sinks.shape[0], dim), np.float32)
    rotate_and_store(product(rows, qkv, threads), rotation, norms, places, cache, value_dim, query)
    mixed = empty_operand(count, last[0])
    by_head = mixed.reshape(count, sinks.shape[0], mixed.shape[1] // sinks.shape[0])
    attend(query, cache, places, blocks, shape, sinks, value_dim, by_head, threads)
    return product(mixed, last, threads)


@kernel
def _normed(rows: Floats, norm: NormOf) -> Floats:
    """The rows normed; as they are where there is no norm."""
    if norm[0].shape[0] == 0:
        return rows
    out = np.empty_like(rows)
    rms_norm(rows, norm[0], norm[1], out)
    return out


@kernel
def layer(
    residual: Floats,
    norms: tuple[NormOf, NormOf, NormOf, NormOf],
    factors: tuple[Factor, Factor, Factor, Factor],
    gelu: bool,
    heads: Heads,
    place: Place,
    threads: int,
) -> None:
    """A whole layer; the residual stream [rows, width] is written over, and stays float32.

    Args:
        residual: what comes in and goes out.
        norms: before attention, of what attention gives, before the MLP, of what the MLP gives.
        factors: the products: query, key and value; attention's last; gate and up; down.
        gelu: see `gate`.
        heads: see `Heads`.
        place: see `Place`.
        threads: how many share the work.
    """
    qkv, last, gate_up, down = factors
    before, attended_norm, between, output_norm = norms
    seen = empty_operand(residual.shape[0], qkv[0])
    rms_norm(residual, before[0], before[1], seen)
    attended = _normed(attention(seen, qkv, last, heads, place, threads), attended_norm)
    narrowed = empty_operand(residual.shape[0], gate_up[0])
    add_norm(residual, attended, between[0], between[1], narrowed)
    add(residual, _normed(gated(narrowed, gate_up, down, gelu, threads), output_norm))


@kernel
def _norm_of(norms: NormOf, index: int) -> NormOf:
    return norms[0][index], norms[1]


@kernel
def _factor_of(factors: Factor, index: int) -> Factor:
    return factors[0][index], factors[1][index], factors[2]


@kernel
def layers(
    residual: Floats,
    norms: tuple[NormOf, NormOf, NormOf, NormOf],
    factors: tuple[Factor, Factor, Factor, Factor],
    gelu: bool,
    heads: Stacked,
    place: Place,
    threads: int,
) -> None:
    """All layers of a model, one after the other; see `layer`.

    The arrays of `norms`, `factors` and `heads` have one dimension more in front, for the layers.
    """
    (keys, values), (scales, windows, softcaps), sinks, value_dim, (query, key, eps) = heads
    a, b, c, d = norms
    e, f, g, h = factors
    for i in range(keys.shape[0]):
        layer(
            residual,
            (_norm_of(a, i), _norm_of(b, i), _norm_of(c, i), _norm_of(d, i)),
            (_factor_of(e, i), _factor_of(f, i), _factor_of(g, i), _factor_of(h, i)),
            gelu,
            (
                (keys[i], values[i]),
                (scales[i], windows[i], softcaps[i]),
                sinks[i],
                value_dim,
                (query[i], key[i], eps),
            ),
            place,
            threads,
        )
