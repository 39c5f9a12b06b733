"""Rounding to bfloat16: to nearest, ties to even, as everywhere. Its bits are a float32's upper half."""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels.arrays import Floats, Operand, Panels, Stored, Words
from transom.engine.kernels.compile import kernel, parallel_kernel

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
def _pair(values: Floats, out: Words) -> None:
    """The numbers 2i and 2i + 1, rounded, to word i, the first in its lower half; zero joins an odd one."""
    bits = values.view(np.uint32)
    for i in range(bits.shape[0] // 2):
        low, high = bits[2 * i], bits[2 * i + 1]
        low = (low + _HALF + ((low >> _SHIFT) & _ONE)) >> _SHIFT
        out[i] = low | ((high + _HALF + ((high >> _SHIFT) & _ONE)) & _UPPER)
    if bits.shape[0] % 2:
        last = bits[bits.shape[0] - 1]
        out[out.shape[0] - 1] = (last + _HALF + ((last >> _SHIFT) & _ONE)) >> _SHIFT


def hand_over(values: Floats, out: Operand) -> None:
    """Write a row as the product that comes next wants it: as it is, or as pairs of bfloat16; for kernels."""
    raise NotImplementedError


@overload(hand_over)
def _hand_over(values, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    if out.dtype == types.uint32:
        return lambda values, out: _pair(values, out)  # noqa: PLW0108  # an implementation is a function

    def copy(values, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        for i in range(values.shape[0]):
            out[i] = values[i]

    return copy


@parallel_kernel
def _pair_rows(rows: Floats, out: Words) -> None:
    for row in numba.prange(rows.shape[0]):
        _pair(rows[row], out[row])


@kernel
def round_to_pairs(rows: Floats) -> Words:
    """[rows, width] to [rows, (width + 1) // 2], two bfloat16 numbers a word; zero joins an odd one."""
    out = np.empty((rows.shape[0], (rows.shape[1] + 1) // 2), np.uint32)
    _pair_rows(rows, out)
    return out


@parallel_kernel
def _round_rows(rows: Words, out: Words) -> None:
    for row in numba.prange(rows.shape[0]):
        for i in range(rows.shape[1]):
            word = rows[row, i]
            out[row, i] = (word + _HALF + ((word >> _SHIFT) & _ONE)) & _UPPER


@kernel
def round_rows(rows: Floats) -> Floats:
    """[rows, width] to the same, as float32 numbers that bfloat16 has."""
    out = np.empty_like(rows)
    _round_rows(rows.view(np.uint32), out.view(np.uint32))
    return out


def empty_operand(rows: int, panels: Panels) -> Operand:
    """An empty array for so many rows to multiply, in the form that spares a conversion."""
    shape = rows, panels.shape[1]
    return np.empty(shape, np.uint32) if panels.dtype == np.uint32 else np.empty(shape, np.float32)


@overload(empty_operand)
def _empty_operand(rows, panels):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    if panels.dtype == types.uint32:
        return lambda rows, panels: np.empty((rows, panels.shape[1]), np.uint32)
    return lambda rows, panels: np.empty((rows, panels.shape[1]), np.float32)


def as_operand(rows: Operand, panels: Panels) -> Operand:
    """The rows as a product by these panels wants them: as they are, rounded, or in pairs."""
    if rows.dtype == np.uint32 or panels.dtype == np.float32:
        return rows
    numbers = rows.view(np.float32)
    return round_rows(numbers) if panels.dtype == np.uint16 else round_to_pairs(numbers)


@overload(as_operand)
def _as_operand(rows, panels):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if panels.dtype == types.uint16:
        return lambda rows, panels: round_rows(rows)  # noqa: ARG005
    if panels.dtype == types.uint32 and rows.dtype == types.float32:
        return lambda rows, panels: round_to_pairs(rows)  # noqa: ARG005
    return lambda rows, panels: rows  # noqa: ARG005
