"""Paged attention: each query row attends to its own past, page by page, in one fixed order.

Batch invariance holds by construction. What a row computes is a function of its query, its position and the
keys and values that it may see; no shape, tile or neighbour enters: see `tile` and `_attend_block`. A prefill
row and a decode row at the same position go through the same chains of operations.

In a cache of numbers no sum ever runs across a vector; one of pairs is for `attention_squares`.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels.arrays import Floats, Ints, Longs, Operand, Panels, Stored
from transom.engine.kernels.attention_squares import Layer, attend_by_squares
from transom.engine.kernels.bfloat16 import hand_over
from transom.engine.kernels.cache import PAGE, Cache, put_key, put_value, sees
from transom.engine.kernels.compile import kernel, parallel_kernel
from transom.engine.kernels.elementary import exp_in_place, highest
from transom.engine.kernels.share import new_counter, take
from transom.engine.kernels.tile import LANES, VECTORS, even_rows, narrow_tile, pace_of, wide_tile

BLOCK = 8
"""Most rows of a sequence that are computed side by side."""


@kernel
def _scale(scores: Floats, low: int, high: int, scale: np.float32, softcap: np.float32) -> None:
    for i in range(scores.shape[0]):
        scores[i] *= scale
    if softcap > 0:
        for i in range(low, high):
            scores[i] = softcap * np.float32(math.tanh(scores[i] / softcap))


@kernel
def _softmax(scores: Floats, low: int, high: int, sink: np.float32, exponents: Ints) -> np.float32:
    """Turn scores[low:high] into weights, zero the others, and return the sum of the weights.

    A finite `sink` joins the sum alone (attention sinks as in gpt-oss).
    """
    peak = max(sink, highest(scores[low:high]))
    exp_in_place(scores[low:high], peak, exponents)
    scores[:low] = np.float32(0.0)
    scores[high:] = np.float32(0.0)
    a = b = c = d = np.float32(0.0)
    for i in range(0, scores.shape[0], 4):
        a += scores[i]
        b += scores[i + 1]
        c += scores[i + 2]
        d += scores[i + 3]
    total = (a + b) + (c + d)
    if sink > -np.inf:
        total += np.float32(math.exp(sink - peak))
    return total


@kernel
def _multiply_lines(
    left: Floats,
    lines: int,
    right: Stored,
    depth: int,
    width: int,
    out: Floats,
    at: int,
    keep: bool,
    ahead: int,
) -> None:
    """out[:lines, at : at + width] (+)= left[:lines, :depth] · right[:depth, :width], tile by tile.

    What is wanted next lies `ahead` elements behind `right`.
    """
    left_stride, stride = left.strides[0] // 4, out.shape[1]
    tall = even_rows(lines)
    pace = pace_of(-(-lines // tall))
    for line in range(0, lines, tall):
        rows = min(tall, lines - line)
        following = ahead + line // tall * (depth >> pace) * width, pace
        x, place, done = (left, line * left_stride, left_stride), line * stride + at, 0
        while done + LANES * VECTORS <= width:
            wide_tile(x, (right, done, width), (out, place + done, stride), depth, rows, keep, following)
            done += LANES * VECTORS
        while done < width:
            narrow_tile(x, (right, done, width), (out, place + done, stride), depth, rows, keep, following)
            done += LANES


@kernel
def _weigh_page(
    weights: Floats,
    begin: int,
    positions: Ints,
    first_page: int,
    window: int,
    block: Stored,
    mixed: Floats,
    ahead: int,
) -> None:
    """Add a page's values, weighed, to `mixed`; of each row only those that its position sees."""
    rows, width = positions.shape[0], mixed.shape[1]
    group = mixed.shape[0] // rows
    latest_low = sees(positions[rows - 1], first_page, window)[0]
    earliest_high = sees(positions[0], first_page, window)[1]
    if latest_low <= begin and begin + PAGE <= earliest_high:
        _multiply_lines(weights[:, begin:], rows * group, block, PAGE, width, mixed, 0, True, ahead)
        return
    for row in range(rows):
        low, high = sees(positions[row], first_page, window)
        low, high = max(low, begin), min(high, begin + PAGE)
        if low < high:
            own, seen = weights[row * group :, low:], block[low - begin :]
            _multiply_lines(own, group, seen, high - low, width, mixed[row * group :], 0, True, 0)


@kernel
def _to_next(cache: Panels, table: Ints, page: int) -> int:
    """Elements from one page of `table` to the next one; 0 from the last one."""
    if page + 1 == table.shape[0]:
        return 0
    between: int = table[page + 1] - table[page]
    return between * int(cache[0].size)


@kernel
def _attend_block(
    first: int,
    rows: int,
    kv_head: int,
    query: Floats,
    cache: tuple[Stored, Stored],
    places: tuple[Ints, Ints, Ints],
    shape: tuple[np.float32, int, np.float32],
    sinks: Floats,
    value_dim: int,
    out: Operand,
) -> None:
    """Attention of consecutive positions of one sequence, for the heads that share one head of the cache.

    They are computed as the lines of small products. A line takes no part in another's chains, and values
    that it may not see take no part in its own: what lies there may be anything.
    """
    tables, row_sequence, row_position = places
    keys, values = cache
    scale, window, softcap = shape
    group, dim = query.shape[1] // keys.shape[1], query.shape[2]
    padded = values.shape[3]
    first_page = sees(row_position[first], 0, window)[0] // PAGE
    pages = row_position[first + rows - 1] // PAGE - first_page + 1
    table = tables[row_sequence[first], first_page : first_page + pages]
    lines = rows * group
    queries = np.empty((lines, dim), np.float32)
    # A page more to a line, so that the lines do not fall on the same few places of the processor's cache.
    scores = np.empty((lines, (pages + 1) * PAGE), np.float32)
    exponents = np.empty(pages * PAGE, np.int32)
    totals = np.empty(lines, np.float32)
    mixed = np.zeros((lines, padded), np.float32)
    for row in range(rows):
        for member in range(group):
            queries[row * group + member] = query[first + row, kv_head * group + member]
    for page in range(pages):
        block, ahead = keys[table[page], kv_head], _to_next(keys, table, page)
        _multiply_lines(queries, lines, block, dim, PAGE, scores, page * PAGE, False, ahead)
    for line in range(lines):
        low, high = sees(row_position[first + line // group], first_page, window)
        own = scores[line, : pages * PAGE]
        _scale(own, low, high, scale, softcap)
        sink = sinks[kv_head * group + line % group]
        totals[line] = _softmax(own, low, high, sink, exponents)
    for page in range(pages):
        block, ahead = values[table[page], kv_head], _to_next(values, table, page)
        positions = row_position[first : first + rows]
        _weigh_page(scores, page * PAGE, positions, first_page, window, block, mixed, ahead)
    for line in range(lines):
        for d in range(padded):
            mixed[line, d] /= totals[line]
        hand_over(mixed[line, :value_dim], out[first + line // group, kv_head * group + line % group])


@kernel
def _attend_by_tiles(
    counter: Longs,
    query: Floats,
    cache: tuple[Stored, Stored],
    places: tuple[Ints, Ints, Ints],
    blocks: Ints,
    layer: Layer,
    out: Operand,
) -> None:
    """One thread's part of `attend`."""
    shape, sinks, value_dim = layer
    kv_heads = cache[0].shape[1]
    total = blocks.shape[0] * kv_heads
    work = take(counter)
    while work < total:
        first, rows = blocks[work // kv_heads]
        _attend_block(first, rows, work % kv_heads, query, cache, places, shape, sinks, value_dim, out)
        work = take(counter)


def _attend_part(
    counter: Longs,
    query: Floats,
    cache: Cache,
    places: tuple[Ints, Ints, Ints],
    blocks: Ints,
    layer: Layer,
    out: Operand,
) -> None:
    """One thread's part of `attend`; for kernels."""
    raise NotImplementedError


@overload(_attend_part)
def _part_for(counter, query, cache, places, blocks, layer, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    way = attend_by_squares if cache[0].dtype == types.uint32 else _attend_by_tiles
    return lambda counter, query, cache, places, blocks, layer, out: way(  # noqa: PLW0108
        counter, query, cache, places, blocks, layer, out
    )


@parallel_kernel
def attend(
    query: Floats,
    cache: Cache,
    places: tuple[Ints, Ints, Ints],
    blocks: Ints,
    shape: tuple[np.float32, int, np.float32],
    sinks: Floats,
    value_dim: int,
    out: Operand,
    threads: int,
) -> None:
    """Attention of `rows` packed query rows.

    Args:
        query: [rows, heads, dim].
        cache: see `Cache`.
        places: tables [sequences, pages of the longest], page numbers in the cache; which table each row
            uses [rows]; the position of each row [rows], which sees the positions up to its own.
        blocks: see `blocks_of`.
        shape: what multiplies the scores; how many positions a row sees, itself included, 0 for all; and
            the cap, by which scores become `softcap * tanh(scores / softcap)`, 0 for none.
        sinks: [heads], a learned score without a value, -inf for none.
        value_dim: dimensions of a value, of which there may be more in the cache.
        out: [rows, heads, value_dim], written; or pairs of these.
        threads: how many share the work.
    """
    counter = new_counter()
    for _ in numba.prange(threads):
        _attend_part(counter, query, cache, places, blocks, (shape, sinks, value_dim), out)


@kernel
def _blocks(row_sequence: Ints, row_position: Ints, found: Ints) -> int:
    count = 0
    for row in range(row_sequence.shape[0]):
        follows = (
            row > 0
            and row_sequence[row] == row_sequence[row - 1]
            and row_position[row] == row_position[row - 1] + 1
            and found[count - 1, 1] < BLOCK
        )
        if follows:
            found[count - 1, 1] += 1
        else:
            found[count, 0], found[count, 1] = row, 1
            count += 1
    return count


def blocks_of(row_sequence: Ints, row_position: Ints) -> Ints:
    """Blocks of rows at consecutive positions of one sequence: [blocks, 2], first row and number of rows.

    Late positions cost more than early ones, and the dearest come first, so that threads end together.
    """
    found = np.empty((row_sequence.shape[0], 2), np.int32)
    found = found[: _blocks(row_sequence, row_position, found)]
    dearest: Ints = found[np.argsort(-row_position[found[:, 0]], kind="stable")]
    return dearest


@parallel_kernel
def store(
    key: Floats,
    value: Floats,
    cache: Cache,
    places: tuple[Ints, Ints, Ints],
) -> None:
    """Write the key [rows, kv_heads, dim] and value of each row into its slot of the cache; see `attend`."""
    keys, values = cache
    tables, row_sequence, row_position = places
    for row in numba.prange(key.shape[0]):
        position = row_position[row]
        page = tables[row_sequence[row], position // PAGE]
        slot = position % PAGE
        for head in range(key.shape[1]):
            put_key(key[row, head], keys[page, head], slot)
            put_value(value[row, head], values[page, head], slot)


def no_sinks(heads: int) -> Floats:
    """Sinks that change nothing."""
    return np.full(heads, -np.inf, np.float32)
