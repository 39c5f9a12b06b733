"""Rounding to bfloat16: to nearest, ties to even, as everywhere. Its bits are a float32's upper half.

Rows are rounded side by side by several threads where there are many; each number is on its own.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels.arrays import Floats, Stored, Words
from transom.engine.kernels.compile import kernel, parallel_kernel

_FEW = 1 << 16
"""Numbers up to which one thread is faster than several."""


_HALF = np.uint32(0x7FFF)
_UPPER = np.uint32(0xFFFF0000)
_SHIFT = np.uint32(16)
_ONE = np.uint32(1)


def as_stored(number: np.float32, where: Stored) -> np.float32 | np.uint16:
    """The number as an array of that kind holds it; for kernels."""
    raise NotImplementedError


@overload(as_stored)
def _as_stored(number, where):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    # numba wants implementations to be written like their declaration.
    if where.dtype == types.uint16:

        def rounded(number, where):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
            word = np.float32(number).view(np.uint32)
            return np.uint16((word + _HALF + ((word >> _SHIFT) & _ONE)) >> _SHIFT)

        return rounded
    return lambda number, where: number  # noqa: ARG005


@kernel
def _nearest(bits: Words, out: Words) -> None:
    """Bits of float32 to bits of the nearest bfloat16, in the upper halves."""
    for i in range(bits.shape[0]):
        word = bits[i]
        out[i] = (word + _HALF + ((word >> _SHIFT) & _ONE)) & _UPPER


@kernel
def _pair(bits: Words, scratch: Words, out: Words) -> None:
    """The bfloat16 numbers 2i and 2i + 1 of a row to word i, the first in the lower half."""
    _nearest(bits, scratch)
    for i in range(bits.shape[0] // 2):
        out[i] = (scratch[2 * i] >> _SHIFT) | scratch[2 * i + 1]
    if bits.shape[0] % 2:
        out[out.shape[0] - 1] = scratch[bits.shape[0] - 1] >> _SHIFT


@kernel
def _pair_few(bits: Words, out: Words) -> None:
    scratch = np.empty(bits.shape[1], np.uint32)
    for row in range(bits.shape[0]):
        _pair(bits[row], scratch, out[row])


@parallel_kernel
def _pair_many(bits: Words, out: Words) -> None:
    for row in numba.prange(bits.shape[0]):
        _pair(bits[row], np.empty(bits.shape[1], np.uint32), out[row])


def round_to_pairs(rows: Floats) -> Words:
    """[rows, width] to [rows, (width + 1) // 2], two bfloat16 numbers a word; zero joins an odd one."""
    out = np.empty((rows.shape[0], (rows.shape[1] + 1) // 2), np.uint32)
    (_pair_few if rows.size <= _FEW else _pair_many)(rows.view(np.uint32), out)
    return out


def round_rows(rows: Floats) -> Floats:
    """[rows, width] to the same, as float32 numbers that bfloat16 has."""
    out = np.empty_like(rows)
    _nearest(rows.view(np.uint32).reshape(-1), out.view(np.uint32).reshape(-1))
    return out
