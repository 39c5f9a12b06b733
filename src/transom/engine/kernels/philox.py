"""Philox4x32-10 and the Gumbel noise of a token: a pure function of (seed, position, choice, token id).

Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.

The key is the 64-bit seed, low word first. The counter is (token id // 4, position, choice, 0), and the word
`token id % 4` of the block belongs to the token. A word x stands for v = (x + 1/2) / 2^32, and the noise is
-log(-log(1 - v)), computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from transom.engine.kernels import vectors
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.emit import Code, unpack
from transom.engine.kernels.tile import LANES

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)

Block = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


@kernel
def philox(c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64) -> Block:
    """Four 32-bit words, held in uint64, of the block at counter (c0, c1, c2, c3) under key (k0, k1)."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0 = (p1 >> _SHIFT) ^ c1 ^ k0
        c1 = p1 & _LOW
        c2 = (p0 >> _SHIFT) ^ c3 ^ k1
        c3 = p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@kernel
def philox_words(
    block: int,
    counter: tuple[np.uint64, np.uint64],
    key: tuple[np.uint64, np.uint64],
    words: NDArray[np.uint32],
) -> None:
    """Fill `words`, a multiple of four of them, with the blocks from `block` on."""
    for i in range(words.shape[0] // 4):
        # Written out, so that the compiler lets several blocks run side by side in the registers.
        c0, c1, c2, c3 = np.uint64(block + i), counter[0], counter[1], np.uint64(0)
        k0, k1 = key
        for _ in range(10):
            p0 = _M0 * (c0 & _LOW)
            p1 = _M1 * (c2 & _LOW)
            c0 = (p1 >> _SHIFT) ^ c1 ^ k0
            c2 = (p0 >> _SHIFT) ^ c3 ^ k1
            c1 = p1 & _LOW
            c3 = p0 & _LOW
            k0 = (k0 + _W0) & _LOW
            k1 = (k1 + _W1) & _LOW
        words[4 * i] = np.uint32(c0)
        words[4 * i + 1] = np.uint32(c1)
        words[4 * i + 2] = np.uint32(c2)
        words[4 * i + 3] = np.uint32(c3)


@kernel
def gumbel(word: np.uint64) -> float:
    """Standard Gumbel noise of one 32-bit word."""
    return -math.log(-math.log1p(-(float(word) + 0.5) * 2.0**-32))


def _any_below(
    _typing: Code,
    words: Code,
    weights: Code,
    count: Code,  # noqa: ARG001
    reach: Code,  # noqa: ARG001
) -> Code:
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        drawn, own = (unpack(context, builder, signature.args[i], args[i]).first for i in range(2))
        reach = vectors.splat(builder, args[3])
        found = cgutils.alloca_once_value(builder, vectors.NONE)  # type: ignore[no-untyped-call]
        with cgutils.for_range(builder, args[2], intp=ir.IntType(64)) as loop:
            at = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            limit = vectors.load(builder, builder.gep(own, [at])) * reach
            below = vectors.of_words(builder, builder.gep(drawn, [at])).below(limit)
            builder.store(builder.or_(builder.load(found), below), found)
        return vectors.any_of(builder, builder.load(found))

    return types.boolean(words, weights, types.intp, types.float32), generate


any_below: Callable[..., bool] = intrinsic(_any_below)
"""`any_below((words, at, stride), (weights, at, stride), vectors, reach)`.

Whether some word of so many vectors is below its weight times `reach`.
"""
