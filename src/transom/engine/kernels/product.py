"""Matrix products for any number of rows, made of tiles; see `tile` for why no row knows of another."""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels import amx, squares
from transom.engine.kernels.arrays import Floats, Operand, Panels, empty_aligned
from transom.engine.kernels.compile import kernel, parallel_kernel
from transom.engine.kernels.share import new_counter, take
from transom.engine.kernels.tile import (
    LANES,
    ROWS,
    VECTORS,
    Rows,
    even_rows,
    narrow_tile,
    pace_of,
    wide_tile,
)

COLUMNS = LANES * VECTORS
"""Columns of a panel; `squares.COLUMNS` where `amx` multiplies it."""

_DEPTH = 2048
"""Rows of a panel that are multiplied in one go, so that they stay in the cache of a core."""

_BLOCK = 64
"""Rows that one thread takes at a time."""

_AMX_BLOCK = 256
"""The same where `amx` multiplies."""

_HELD = 1 << 18
"""Numbers of rows that meet all panels in one go: a mebibyte, half of what a core's second cache holds."""


def pack(matrix: Panels, columns: int = COLUMNS) -> Panels:
    """[out, depth] to panels of so many columns."""
    out, depth = matrix.shape
    panels = -(-out // columns)
    filled = np.zeros((panels * columns, depth), matrix.dtype)
    filled[:out] = matrix
    packed = empty_aligned((panels, depth, columns), matrix.dtype)
    packed[...] = filled.reshape(panels, columns, depth).transpose(0, 2, 1)
    return packed


@kernel
def _finish_tile(x: Rows, w: Rows, out: Rows, depth: int, rows: int, keep: bool) -> None:
    """What `square_tile` leaves of a tile's depth, by our own tiles."""
    for row in range(0, rows, ROWS):
        for column in range(0, squares.COLUMNS, LANES):
            narrow_tile(
                (x[0], x[1] + row * x[2], x[2]),
                (w[0], w[1] + column, w[2]),
                (out[0], out[1] + row * out[2] + column, out[2]),
                depth,
                min(ROWS, rows - row),
                keep,
                0,
                0,
            )


@kernel
def _amx_rows(rows: Operand, panel: Panels, out: Floats, at: int, first: int, count: int, keep: bool) -> None:
    """A tile of rows from `first` on, over the whole depth."""
    depth, width = rows.shape[1], squares.COLUMNS
    whole = depth - depth % amx.STEP
    tile = (out, at + first * out.shape[1], out.shape[1])
    if whole:
        squares.square_tile((rows, first * depth, depth), (panel, 0, width), tile, whole, count, keep)
    if whole < depth:
        x, w = (rows, first * depth + whole, depth), (panel, whole * width, width)
        _finish_tile(x, w, tile, depth - whole, count, keep or whole > 0)


@kernel
def _amx_panel(rows: Operand, panel: Panels, out: Floats, at: int, keep: bool) -> None:
    """As `_multiply_panel`, by the processor's own tiles."""
    count = rows.shape[0]
    whole = count - count % squares.ROWS
    if whole:
        amx.shape(squares.SHAPES, squares.ROWS)
        for row in range(0, whole, squares.ROWS):
            _amx_rows(rows, panel, out, at, row, squares.ROWS, keep)
    if whole < count:
        amx.shape(squares.SHAPES, count - whole)
        _amx_rows(rows, panel, out, at, whole, count - whole, keep)
    amx.release()


def _multiply_tiles(rows: Operand, panel: Panels, out: Floats, at: int, keep: bool, ahead: int) -> None:
    """Out (+)= rows · panel, tile by tile; for kernels."""
    raise NotImplementedError


@overload(_multiply_tiles)
def _tiles_for(rows, panel, out, at, keep, ahead):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    if not amx.HAS_AMX or rows.dtype != types.uint32:
        return lambda rows, panel, out, at, keep, ahead: _own_tiles(  # noqa: PLW0108
            rows, panel, out, at, keep, ahead
        )

    def either(rows, panel, out, at, keep, ahead):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if panel.shape[1] == squares.COLUMNS:
            _amx_panel(rows, panel, out, at, keep)
        else:
            _own_tiles(rows, panel, out, at, keep, ahead)

    return either


@kernel
def _own_tiles(rows: Operand, panel: Panels, out: Floats, at: int, keep: bool, ahead: int) -> None:
    count, depth = rows.shape
    stride = out.shape[1]
    tall = even_rows(count, ROWS)
    pace = pace_of(-(-count // tall))
    for start in range(0, depth, _DEPTH):
        deep = min(_DEPTH, depth - start)
        for row in range(0, count, tall):
            x = (rows, row * depth + start, depth)
            w = (panel, start * COLUMNS, COLUMNS)
            following = ahead + row // tall * (deep >> pace) * COLUMNS
            tile = (out, at + row * stride, stride)
            wide_tile(x, w, tile, deep, min(tall, count - row), keep or start > 0, following, pace)


@kernel
def _multiply_panel(rows: Operand, panel: Panels, bias: Floats, out: Floats, at: int, ahead: int) -> None:
    """Columns of `out`, of which the first number is out.flat[at], from one panel.

    Which panel is likely to be wanted next lies `ahead` elements behind this one. Each tile of rows asks for
    its share of it.
    """
    if bias.shape[0]:
        width, columns = panel.shape[1], out.ravel()
        for row in range(rows.shape[0]):
            begin = at + row * out.shape[1]
            columns[begin : begin + width] = bias[:width]
    _multiply_tiles(rows, panel, out, at, bias.shape[0] > 0, ahead)


@kernel
def _block_size(columns: int) -> int:
    return _AMX_BLOCK if columns == squares.COLUMNS else _BLOCK


@kernel
def _multiply_block(
    rows: Operand, first: int, panel: Panels, number: int, bias: Floats, out: Floats, ahead: int
) -> None:
    """The rows from `first` on, as many as one block has, times the panel of that number."""
    width = panel.shape[1]
    columns, left = out.shape[1], number * width
    end = min(rows.shape[0], first + _block_size(width))
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
        panels: see `arrays.Panels`; columns are COLUMNS or `squares.COLUMNS`.
        bias: [out], or empty.
        out: [rows, out], written.
        threads: how many share the work.
    """
    block = _block_size(panels.shape[2])
    blocks, columns = -(-rows.shape[0] // block), panels.shape[0]
    size = panels.shape[1] * panels.shape[2]
    group = max(1, _HELD // (panels.shape[1] * block))
    counter = new_counter()
    for _ in numba.prange(threads):
        work = take(counter)
        while work < columns * blocks:
            # Whole columns of a group of blocks: their rows stay in the cache of a core meanwhile.
            before = work // (group * columns) * group
            wide = min(group, blocks - before)
            place = work - before * columns
            number, first = place // wide, (before + place % wide) * block
            # Threads that are equally fast take pieces in turn. A single row is computed as fast as memory
            # can be read, and asking for more only disturbs it.
            following = min(columns - 1, (place + threads) // wide) if rows.shape[0] > 1 else number
            ahead = (following - number) * size
            _multiply_block(rows, first, panels[number], number, bias, out, ahead)
            work = take(counter)
