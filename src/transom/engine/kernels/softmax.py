"""Softmax of a line of scores, its weights wanted as numbers or as pairs of bfloat16; for kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from transom.engine.kernels import vectors
from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.compile import uncounted_kernel
from transom.engine.kernels.elementary import UNDERFLOW
from transom.engine.kernels.emit import Code, unpack
from transom.engine.kernels.tile import LANES, Rows
from transom.engine.kernels.vectors import Vector

_I64 = ir.IntType(64)


@contextmanager
def _gathering(builder: Code, start: Vector, count: Code) -> Iterator[tuple[Code, Code]]:
    """A loop over `count` vectors: the number of the first lane, and where the running result is kept."""
    kept = cgutils.alloca_once_value(builder, start.value)  # type: ignore[no-untyped-call]
    with cgutils.for_range(builder, count, intp=_I64) as loop:
        yield builder.mul(loop.index, ir.Constant(_I64, LANES)), kept


def _peak(
    _typing: Code,
    scores: Code,
    low: Code,  # noqa: ARG001
    high: Code,  # noqa: ARG001
    count: Code,  # noqa: ARG001
) -> Code:
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        line = unpack(context, builder, signature.args[0], args[0]).first
        low, high, count = args[1:]
        lowest = vectors.constant(builder, -np.inf)
        with _gathering(builder, lowest, count) as (index, kept):
            mask = vectors.within(builder, index, low, high)
            seen = vectors.load(builder, builder.gep(line, [index])).where(mask, -np.inf)
            builder.store(seen.at_least(Vector(builder, builder.load(kept))).value, kept)
        return Vector(builder, builder.load(kept)).reduce(Vector.at_least)

    return types.float32(scores, types.intp, types.intp, types.intp), generate


def _weigh(
    _typing: Code,
    scores: Code,
    weights: Code,
    low: Code,  # noqa: ARG001
    high: Code,  # noqa: ARG001
    count: Code,  # noqa: ARG001
    scale: Code,  # noqa: ARG001
    shift: Code,  # noqa: ARG001
) -> Code:
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        line, out = (unpack(context, builder, signature.args[i], args[i]).first for i in range(2))
        low, high, count = args[2:5]
        scale, shift = (vectors.splat(builder, number) for number in args[5:])
        with _gathering(builder, vectors.constant(builder, 0.0), count) as (index, kept):
            mask = vectors.within(builder, index, low, high)
            x = vectors.load(builder, builder.gep(line, [index])) * scale - shift
            weight = vectors.exp(x.at_least(UNDERFLOW)).where(mask, 0.0)
            if weights[0].dtype == types.uint32:
                halves, weight = vectors.rounded(weight)
                vectors.store_halves(builder, halves, builder.gep(out, [builder.lshr(index, _ONE)]))
            else:
                vectors.store(weight, builder.gep(out, [index]))
            builder.store((Vector(builder, builder.load(kept)) + weight).value, kept)
        return Vector(builder, builder.load(kept)).reduce(Vector.__add__)

    whole = types.intp
    kinds = (scores, weights, whole, whole, whole, types.float32, types.float32)
    return types.float32(*kinds), generate


def _weigh_all(
    _typing: Code,
    scores: Code,
    weights: Code,
    count: Code,  # noqa: ARG001
    top: Code,  # noqa: ARG001
    slope: Code,  # noqa: ARG001
) -> Code:
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        line, out = (unpack(context, builder, signature.args[i], args[i]).first for i in range(2))
        top, slope = (vectors.splat(builder, number) for number in args[3:])
        with _gathering(builder, vectors.constant(builder, 0.0), args[2]) as (index, kept):
            x = (vectors.load(builder, builder.gep(line, [index])) - top) * slope
            weight = vectors.exp(x.at_least(UNDERFLOW))
            vectors.store(weight, builder.gep(out, [index]))
            builder.store((Vector(builder, builder.load(kept)) + weight).value, kept)
        return Vector(builder, builder.load(kept)).reduce(Vector.__add__)

    return types.float32(scores, weights, types.intp, types.float32, types.float32), generate


_ONE = ir.Constant(_I64, 1)

peak: Callable[..., np.float32] = intrinsic(_peak)
"""`peak((scores, at, stride), low, high, vectors)`: the highest of scores[low:high], of so many vectors."""

weigh: Callable[..., np.float32] = intrinsic(_weigh)
"""`weigh((scores, at, stride), (weights, at, stride), low, high, vectors, scale, shift)`.

weights[low:high] = exp(scores * scale - shift) and 0 elsewhere, rounded to bfloat16 and two to a word where
weights are words; returns their sum, by lanes and then over the lanes, so that zeros on either side do not
show in it.
"""

weigh_all: Callable[..., np.float32] = intrinsic(_weigh_all)
"""`weigh_all((scores, at, stride), (weights, at, stride), vectors, top, slope)`.

weights = exp((scores - top) * slope) of so many vectors, never quite 0; returns their sum as `weigh` does.
"""


@uncounted_kernel
def _cap(scores: Floats, at: int, low: int, high: int, scale: np.float32, softcap: np.float32) -> None:
    for i in range(at + low, at + high):
        scores.flat[i] = softcap * np.float32(math.tanh(scores.flat[i] * scale / softcap))


@uncounted_kernel
def soften(
    scores: tuple[Floats, int, int],
    weights: Rows,
    seen: tuple[int, int],
    count: int,
    shape: tuple[np.float32, int, np.float32],
    sink: np.float32,
) -> np.float32:
    """Turn a line of scores into weights, which may lie in the same place, and return their sum.

    Args:
        scores: see `tile.Rows`; `count` vectors, of which `seen` are the first and the end of what counts.
        weights: written, zero where nothing counts.
        seen: see `scores`.
        count: see `scores`.
        shape: see `attention.attend`.
        sink: joins the sum alone if finite (attention sinks as in gpt-oss).
    """
    low, high = seen
    scale, _, softcap = shape
    if softcap > 0:
        _cap(scores[0], scores[1], low, high, scale, softcap)
        scale = np.float32(1.0)
    highest = max(sink, peak(scores, low, high, count) * scale)
    total = weigh(scores, weights, low, high, count, scale, highest)
    if sink > -np.inf:
        total += np.float32(math.exp(sink - highest))
    return total
