"""Matrix products for any number of rows, made of tiles; see `tile` for why no row knows of another."""

from __future__ import annotations

import numba
import numpy as np

from transom.engine.kernels.arrays import Floats, Operand, Panels
from transom.engine.kernels.compile import kernel, parallel_kernel
from transom.engine.kernels.share import new_counter, take
from transom.engine.kernels.tile import LANES, VECTORS, even_rows, pace_of, wide_tile

COLUMNS = LANES * VECTORS
"""Columns of a panel."""

_DEPTH = 2048
"""Rows of a panel that are multiplied in one go, so that they stay in the cache of a core."""

_BLOCK = 64
"""Rows that one thread takes at a time."""


def pack(matrix: Panels) -> Panels:
    """[out, depth] to panels."""
    out, depth = matrix.shape
    panels = -(-out // COLUMNS)
    filled = np.zeros((panels * COLUMNS, depth), matrix.dtype)
    filled[:out] = matrix
    return np.ascontiguousarray(filled.reshape(panels, COLUMNS, depth).transpose(0, 2, 1))


@kernel
def _multiply_panel(rows: Operand, panel: Panels, bias: Floats, out: Floats, at: int, ahead: int) -> None:
    """Columns of `out`, of which the first number is out.flat[at], from one panel.

    Which panel is likely to be wanted next lies `ahead` elements behind this one. Each tile of rows asks for
    its share of it.
    """
    count, depth = rows.shape
    stride = out.shape[1]
    if bias.shape[0]:
        columns = out.ravel()
        for row in range(count):
            begin = at + row * stride
            columns[begin : begin + COLUMNS] = bias[:COLUMNS]
    tall = even_rows(count)
    pace = pace_of(-(-count // tall))
    for start in range(0, depth, _DEPTH):
        deep = min(_DEPTH, depth - start)
        keep = start > 0 or bias.shape[0] > 0
        for row in range(0, count, tall):
            x = (rows, row * depth + start, depth)
            w = (panel, start * COLUMNS, COLUMNS)
            following = ahead + row // tall * (deep >> pace) * COLUMNS, pace
            wide_tile(x, w, (out, at + row * stride, stride), deep, min(tall, count - row), keep, following)


@kernel
def _multiply_block(
    rows: Operand, first: int, panel: Panels, number: int, bias: Floats, out: Floats, ahead: int
) -> None:
    """The rows from `first` on, as many as one block has, times the panel of that number."""
    columns, left = out.shape[1], number * COLUMNS
    end = min(rows.shape[0], first + _BLOCK)
    if left + COLUMNS <= columns:
        _multiply_panel(rows[first:end], panel, bias[left:], out, first * columns + left, ahead)
        return
    part = np.empty((end - first, COLUMNS), np.float32)
    begin = np.zeros(COLUMNS if bias.shape[0] else 0, np.float32)
    begin[: columns - left] = bias[left:]
    _multiply_panel(rows[first:end], panel, begin, part, 0, ahead)
    out[first:end, left:] = part[:, : columns - left]


@parallel_kernel
def multiply(rows: Operand, panels: Panels, bias: Floats, out: Floats, threads: int) -> None:
    """Out = rows · panels + bias, the sum of each number starting from the bias.

    Args:
        rows: [rows, depth] in a format that goes with that of `panels`; see `tile`.
        panels: see `arrays.Panels`; columns are COLUMNS.
        bias: [out], or empty.
        out: [rows, out], written.
        threads: how many share the work.
    """
    blocks = -(-rows.shape[0] // _BLOCK)
    total = panels.shape[0] * blocks
    size = panels.shape[1] * COLUMNS
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
