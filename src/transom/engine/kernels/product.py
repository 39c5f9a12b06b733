"""Matrix products for any number of rows, made of tiles; see `tile` for why no row knows of another."""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels import amx
from transom.engine.kernels.arrays import Floats, Operand, Panels
from transom.engine.kernels.compile import kernel, parallel_kernel
from transom.engine.kernels.share import new_counter, take
from transom.engine.kernels.tile import LANES, ROWS, VECTORS, even_rows, narrow_tile, pace_of, wide_tile

COLUMNS = LANES * VECTORS
"""Columns of a panel; `amx.COLUMNS` where the processor's own tiles multiply it."""

_DEPTH = 2048
"""Rows of a panel that are multiplied in one go, so that they stay in the cache of a core."""

_BLOCK = 64
"""Rows that one thread takes at a time."""


def pack(matrix: Panels, columns: int = COLUMNS) -> Panels:
    """[out, depth] to panels of so many columns."""
    out, depth = matrix.shape
    panels = -(-out // columns)
    filled = np.zeros((panels * columns, depth), matrix.dtype)
    filled[:out] = matrix
    return np.ascontiguousarray(filled.reshape(panels, columns, depth).transpose(0, 2, 1))


Matrix = tuple[Operand | Panels | Floats, int, int]
"""An array, the flat offset of a tile's first number in it, and the distance from row to row."""


@kernel
def _by_amx(x: Matrix, w: Matrix, out: Matrix, depth: int, rows: int, keep: bool) -> None:
    """A tile of pairs by the processor's own tiles; what is left of the depth goes on by ours."""
    whole = depth - depth % amx.STEP
    if whole:
        amx.amx_tile(x, w, out, whole, rows, keep)
    if whole == depth:
        return
    for row in range(0, rows, ROWS):
        for column in range(0, amx.COLUMNS, LANES):
            narrow_tile(
                (x[0], x[1] + row * x[2] + whole, x[2]),
                (w[0], w[1] + whole * w[2] + column, w[2]),
                (out[0], out[1] + row * out[2] + column, out[2]),
                depth - whole,
                min(ROWS, rows - row),
                keep or whole > 0,
                (0, 0),
            )


def _multiply_tile(
    x: Matrix, w: Matrix, out: Matrix, depth: int, rows: int, keep: bool, following: tuple[int, int]
) -> None:
    """A tile as wide as its panel; for kernels."""
    raise NotImplementedError


@overload(_multiply_tile)
def _tile_for(x, w, out, depth, rows, keep, following):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    if not amx.HAS_AMX or x[0].dtype != types.uint32:
        return lambda x, w, out, depth, rows, keep, following: wide_tile(  # noqa: PLW0108
            x, w, out, depth, rows, keep, following
        )

    def either(x, w, out, depth, rows, keep, following):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if w[2] == amx.COLUMNS:
            _by_amx(x, w, out, depth, rows, keep)
        else:
            wide_tile(x, w, out, depth, rows, keep, following)

    return either


@kernel
def _rows_of_tile(columns: int, count: int) -> int:
    return amx.ROWS if columns == amx.COLUMNS else even_rows(count)


@kernel
def _multiply_panel(rows: Operand, panel: Panels, bias: Floats, out: Floats, at: int, ahead: int) -> None:
    """Columns of `out`, of which the first number is out.flat[at], from one panel.

    Which panel is likely to be wanted next lies `ahead` elements behind this one. Each tile of rows asks for
    its share of it.
    """
    count, depth = rows.shape
    stride, width = out.shape[1], panel.shape[1]
    if bias.shape[0]:
        columns = out.ravel()
        for row in range(count):
            begin = at + row * stride
            columns[begin : begin + width] = bias[:width]
    tall = _rows_of_tile(width, count)
    pace = pace_of(-(-count // tall))
    for start in range(0, depth, _DEPTH):
        deep = min(_DEPTH, depth - start)
        keep = start > 0 or bias.shape[0] > 0
        for row in range(0, count, tall):
            x = (rows, row * depth + start, depth)
            w = (panel, start * width, width)
            following = ahead + row // tall * (deep >> pace) * width, pace
            tile = (out, at + row * stride, stride)
            _multiply_tile(x, w, tile, deep, min(tall, count - row), keep, following)


@kernel
def _multiply_block(
    rows: Operand, first: int, panel: Panels, number: int, bias: Floats, out: Floats, ahead: int
) -> None:
    """The rows from `first` on, as many as one block has, times the panel of that number."""
    width = panel.shape[1]
    columns, left = out.shape[1], number * width
    end = min(rows.shape[0], first + _BLOCK)
    if left + width <= columns:
        _multiply_panel(rows[first:end], panel, bias[left:], out, first * columns + left, ahead)
        return
    part = np.empty((end - first, width), np.float32)
    begin = np.zeros(width if bias.shape[0] else 0, np.float32)
    begin[: columns - left] = bias[left:]
    _multiply_panel(rows[first:end], panel, begin, part, 0, ahead)
    out[first:end, left:] = part[:, : columns - left]


@parallel_kernel
def multiply(rows: Operand, panels: Panels, bias: Floats, out: Floats, threads: int) -> None:
    """Out = rows · panels + bias, the sum of each number starting from the bias.

    Args:
        rows: [rows, depth] in a format that goes with that of `panels`; see `tile`.
        panels: see `arrays.Panels`; columns are COLUMNS or `amx.COLUMNS`.
        bias: [out], or empty.
        out: [rows, out], written.
        threads: how many share the work.
    """
    blocks = -(-rows.shape[0] // _BLOCK)
    total = panels.shape[0] * blocks
    size = panels.shape[1] * panels.shape[2]
    counter = new_counter()
    for _ in numba.prange(threads):
        work = take(counter)
        while work < total:
            number = work // blocks
            # Threads that are equally fast take pieces in turn. A single row is computed as fast as memory
            # can be read, and asking for more only disturbs it.
            following = min(panels.shape[0] - 1, (work + threads) // blocks) if rows.shape[0] > 1 else number
            ahead = (following - number) * size
            _multiply_block(rows, work % blocks * _BLOCK, panels[number], number, bias, out, ahead)
            work = take(counter)
