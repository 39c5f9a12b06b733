"""The tile of matrix products of pairs of bfloat16 by `amx`: 32 rows by 32 columns.

It computes what `tile` computes of such pairs, with other roundings. A number of the result is one chain over
blocks of STEP pairs in ascending order, whatever the number of rows.
"""

from __future__ import annotations

from transom.engine.kernels import amx
from transom.engine.kernels.amx import LINES, STEP
from transom.engine.kernels.arrays import Floats, Operand, Panels
from transom.engine.kernels.compile import kernel

ROWS = 2 * LINES
"""Most rows of a tile."""

COLUMNS = 32
"""Columns of a tile."""

_WHOLE = 64
"""Bytes of a whole line."""


def _registers(rows: int) -> list[tuple[int, int]]:
    """Sums of upper and lower rows, left and right columns; upper and lower rows; left and right weights."""
    upper, lower = (max(0, min(LINES, rows - first)) for first in (0, LINES))
    lines = (upper, upper, lower, lower, upper, lower, LINES, LINES)
    return [(count, _WHOLE) for count in lines]


SHAPES = amx.shapes([_registers(rows) for rows in range(ROWS + 1)])
"""For `amx.shape`, by the number of rows."""

Rows = tuple[Operand | Panels, int, int]
"""Where pairs lie, as in `amx`."""

Sums = tuple[Floats, int, int]
"""Where sums lie."""


@kernel
def square_tile(x: Rows, w: Rows, out: Sums, depth: int, rows: int, keep: bool) -> None:
    """out[r, c] (+)= sum over k of x[r, k] * w[k, c], for ROWS rows and COLUMNS columns at most.

    Args:
        x: where the pairs of rows lie.
        w: where those of COLUMNS columns lie.
        out: where the result lies, COLUMNS columns wide.
        depth: how many pairs, a multiple of STEP, and not 0.
        rows: how many rows; the registers have been shaped for them.
        keep: whether the chains go on from what is in `out`.
    """
    if rows > LINES:
        _tall(x, w, out, depth, keep)
    else:
        _low(x, w, out, depth, keep)


@kernel
def _low(x: Rows, w: Rows, out: Sums, depth: int, keep: bool) -> None:
    left, right = (out[0], out[1], out[2]), (out[0], out[1] + STEP, out[2])
    if keep:
        amx.load(0, left)
        amx.load(1, right)
    else:
        amx.clear(0)
        amx.clear(1)
    for k in range(0, depth, STEP):
        at = w[1] + k * w[2]
        amx.load(4, (x[0], x[1] + k, x[2]))
        amx.load(6, (w[0], at, w[2]))
        amx.add_products(0, 4, 6)
        amx.load(7, (w[0], at + STEP, w[2]))
        amx.add_products(1, 4, 7)
    amx.save(0, left)
    amx.save(1, right)


@kernel
def _tall(x: Rows, w: Rows, out: Sums, depth: int, keep: bool) -> None:
    """A register is loaded as late as can be, while the processor still multiplies by others."""
    below = out[1] + LINES * out[2]
    left, right = (out[0], out[1], out[2]), (out[0], out[1] + STEP, out[2])
    lower_left, lower_right = (out[0], below, out[2]), (out[0], below + STEP, out[2])
    if keep:
        amx.load(0, left)
        amx.load(1, right)
        amx.load(2, lower_left)
        amx.load(3, lower_right)
    else:
        amx.clear(0)
        amx.clear(1)
        amx.clear(2)
        amx.clear(3)
    for k in range(0, depth, STEP):
        at, own = w[1] + k * w[2], x[1] + k
        amx.load(4, (x[0], own, x[2]))
        amx.load(6, (w[0], at, w[2]))
        amx.add_products(0, 4, 6)
        amx.load(7, (w[0], at + STEP, w[2]))
        amx.add_products(1, 4, 7)
        amx.load(5, (x[0], own + LINES * x[2], x[2]))
        amx.add_products(2, 5, 6)
        amx.add_products(3, 5, 7)
    amx.save(0, left)
    amx.save(1, right)
    amx.save(2, lower_left)
    amx.save(3, lower_right)
