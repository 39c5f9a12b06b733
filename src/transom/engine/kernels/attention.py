"""Paged attention: each query row attends to its own past, page by page, in one fixed order.

Batch invariance holds by construction. What a row computes is a function of its query, its position and the
keys and values that it may see; no shape, tile or neighbour enters: see `tile` and `_attend_block`. A prefill
row and a decode row at the same position go through the same chains of operations.

In a cache of numbers no sum ever runs across a vector; one of pairs is for `attention_squares`.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels.arrays import Floats, Ints, Longs, Operand, Stored
from transom.engine.kernels.attention_squares import Layer, attend_by_squares
from transom.engine.kernels.bfloat16 import hand_over
from transom.engine.kernels.cache import PAGE, Cache, put_key, put_value, sees
from transom.engine.kernels.compile import kernel, parallel_kernel, uncounted_kernel
from transom.engine.kernels.share import new_counter, take
from transom.engine.kernels.softmax import soften
from transom.engine.kernels.tile import (
    LANES,
    PAIR_ROWS,
    ROWS,
    Rows,
    even_rows,
    narrow_tile,
    pace_of,
    pair_tile,
)

BLOCK = 8
"""Most rows of a sequence that are computed side by side."""

_TOGETHER = 4
"""Pages whose values are weighed side by side: so many stay in the first of a core's caches."""

_NEAR = 1 << 16
"""Numbers that are still in the second of a core's caches when they are wanted; it may have 512 KiB."""


Pages = tuple[Ints, int]
"""Pages of the cache that hold a block's past, in order, and which head of them."""


@uncounted_kernel
def _place(pages: Pages, page: int, heads: int, size: int) -> int:
    """Flat offset of a page, or of the last one if there are not so many, in an array of so many heads."""
    numbers, head = pages
    return (int(numbers[min(page, numbers.shape[0] - 1)]) * heads + head) * size


@uncounted_kernel
def _score(queries: Floats, keys: Stored, own: Pages, upcoming: Pages, scores: Floats) -> None:
    """scores[lines, slots] = queries · keys, two pages side by side: more chains than one takes less time."""
    (lines, dim), stride = queries.shape, scores.shape[1]
    heads, size, count = keys.shape[1], dim * PAGE, own[0].shape[0]
    tall = even_rows(lines, PAIR_ROWS)
    pace = pace_of(-(-lines // tall))
    for page in range(0, count, 2):
        at, second = _place(own, page, heads, size), _place(own, page + 1, heads, size)
        ahead = _place(upcoming, page, heads, size) - at
        beyond = _place(upcoming, page + 1, heads, size) - second
        for line in range(0, lines, tall):
            rows, asked = min(tall, lines - line), line // tall * (dim >> pace) * PAGE
            x, out = (queries, line * dim, dim), (scores, line * stride + page * PAGE, stride)
            if page + 1 < count:
                aheads = ahead + asked, beyond + asked
                pair_tile(x, (keys, at, PAGE), second - at, out, dim, rows, False, aheads, pace)
            else:
                narrow_tile(x, (keys, at, PAGE), out, dim, rows, False, ahead + asked, pace)


@uncounted_kernel
def _add_pages(
    weights: Floats,
    begin: int,
    values: Stored,
    own: Pages,
    upcoming: Pages,
    first: int,
    end: int,
    mixed: Floats,
) -> None:
    """mixed[lines, dims] += weights[lines, begin:] · values of the pages from `first` to `end`."""
    (lines, width), stride, heads = mixed.shape, weights.shape[1], values.shape[1]
    size, tall = PAGE * width, even_rows(lines, PAIR_ROWS)
    pace = pace_of(-(-lines // tall))
    for line in range(0, lines, tall):
        rows, asked = min(tall, lines - line), line // tall * (PAGE >> pace) * width
        for d in range(0, width, 2 * LANES):
            out = (mixed, line * width + d, width)
            for page in range(first, end):
                at = _place(own, page, heads, size)
                ahead = _place(upcoming, page, heads, size) - at + asked
                x, w = (
                    (weights, line * stride + begin + (page - first) * PAGE, stride),
                    (values, at + d, width),
                )
                if d + LANES < width:
                    pair_tile(x, w, LANES, out, PAGE, rows, True, (ahead, ahead), pace)
                else:
                    narrow_tile(x, w, out, PAGE, rows, True, ahead, pace)


@uncounted_kernel
def _add_seen(weights: Rows, values: Rows, depth: int, out: Rows, lines: int) -> None:
    """out[:lines] += weights[:lines, :depth] · values[:depth]; rows of values are as wide as of `out`."""
    width = out[2]
    tall = even_rows(lines, ROWS)
    for line in range(0, lines, tall):
        x = (weights[0], weights[1] + line * weights[2], weights[2])
        for d in range(0, width, LANES):
            w, place = (values[0], values[1] + d, width), (out[0], out[1] + line * width + d, width)
            narrow_tile(x, w, place, depth, min(tall, lines - line), True, 0, 0)


@uncounted_kernel
def _is_whole(page: int, positions: Ints, first_page: int, window: int) -> bool:
    """Whether every one of the positions, which are consecutive, sees the whole page."""
    latest_low = sees(positions[positions.shape[0] - 1], first_page, window)[0]
    earliest_high = sees(positions[0], first_page, window)[1]
    return latest_low <= page * PAGE and (page + 1) * PAGE <= earliest_high


@uncounted_kernel
def _weigh(
    weights: Floats,
    positions: Ints,
    first_page: int,
    window: int,
    values: Stored,
    own: Pages,
    upcoming: Pages,
    mixed: Floats,
) -> None:
    """Add all values, weighed, to `mixed`; of each row only those that its position sees, in their order."""
    rows, (lines, width), stride = positions.shape[0], mixed.shape, weights.shape[1]
    group, pages, page = lines // rows, own[0].shape[0], 0
    while page < pages:
        end = page
        while end < min(pages, page + _TOGETHER) and _is_whole(end, positions, first_page, window):
            end += 1
        if page < end:
            _add_pages(weights, page * PAGE, values, own, upcoming, page, end, mixed)
            page = end
            continue
        at = _place(own, page, values.shape[1], PAGE * width)
        for row in range(rows):
            low, high = sees(positions[row], first_page, window)
            low, high = max(low, page * PAGE), min(high, page * PAGE + PAGE)
            line = row * group
            if low < high:
                light, seen = (
                    (weights, line * stride + low, stride),
                    (values, at + (low % PAGE) * width, width),
                )
                _add_seen(light, seen, high - low, (mixed, line * width, width), group)
        page += 1


Scratch = tuple[Floats, Floats, Floats, Floats]
"""Queries, scores, sums of weights, and mixed values of a block, as many as the largest needs."""


@kernel
def _scratch(lines: int, pages: int, dim: int, padded: int) -> Scratch:
    return (
        np.empty(lines * dim, np.float32),
        # A page more to a line, so that lines do not fall on the same few places of the processor's cache.
        np.empty(lines * (pages + 1) * PAGE, np.float32),
        np.empty(lines, np.float32),
        np.empty(lines * padded, np.float32),
    )


@uncounted_kernel
def _attend_block(
    first: int,
    rows: int,
    own: Pages,
    upcoming: Pages,
    query: Floats,
    cache: tuple[Stored, Stored],
    positions: Ints,
    layer: Layer,
    scratch: Scratch,
    out: Operand,
) -> None:
    """Attention of consecutive positions of one sequence, for the heads that share one head of the cache.

    They are computed as the lines of small products. A line takes no part in another's chains, and values
    that it may not see take no part in its own: what lies there may be anything.
    """
    keys, values = cache
    shape, sinks, value_dim = layer
    window = shape[1]
    heads, head = keys.shape[1], own[1]
    group, dim, padded, pages = query.shape[1] // heads, query.shape[2], values.shape[3], own[0].shape[0]
    first_page = sees(positions[0], 0, window)[0] // PAGE
    lines, slots = rows * group, pages * PAGE
    queries = scratch[0][: lines * dim].reshape(lines, dim)
    scores = scratch[1][: lines * (slots + PAGE)].reshape(lines, slots + PAGE)
    totals = scratch[2]
    mixed = scratch[3][: lines * padded].reshape(lines, padded)
    for line in range(lines):
        for d in range(dim):
            queries[line, d] = query[first + line // group, head * group + line % group, d]
    _score(queries, keys, own, upcoming, scores)
    for line in range(lines):
        seen, place = sees(positions[line // group], first_page, window), (scores, line * (slots + PAGE), 1)
        totals[line] = soften(place, place, seen, pages, shape, sinks[head * group + line % group])
    mixed[:] = np.float32(0.0)
    _weigh(scores, positions, first_page, window, values, own, upcoming, mixed)
    for line in range(lines):
        for d in range(padded):
            mixed[line, d] /= totals[line]
        hand_over(mixed[line, :value_dim], out[first + line // group, head * group + line % group])


@kernel
def _pages_of(work: int, blocks: Ints, places: tuple[Ints, Ints, Ints], window: int, kv_heads: int) -> Pages:
    """The pages that the rows of a block see; work numbers heads of blocks."""
    tables, row_sequence, row_position = places
    first, rows = blocks[work // kv_heads]
    first_page = sees(row_position[first], 0, window)[0] // PAGE
    end = row_position[first + rows - 1] // PAGE + 1
    return tables[row_sequence[first], first_page:end], work % kv_heads


@kernel
def _wanted_next(own: Pages, following: Pages, numbers: int) -> Pages:
    """What memory is asked for while `own` is read, of which a page has so many numbers.

    That is what the thread takes next, page by page, if it would still lie in the cache then; else the page
    after each of one's own.
    """
    pages, head = own
    if pages.shape[0] * numbers <= _NEAR:
        return following
    return pages[min(1, pages.shape[0] - 1) :], head


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
    keys, values = cache
    kv_heads, dim, padded = keys.shape[1], query.shape[2], values.shape[3]
    total = blocks.shape[0] * kv_heads
    window = layer[0][1]
    numbers = (dim + padded) * PAGE
    scratch = _scratch(BLOCK * (query.shape[1] // kv_heads), places[0].shape[1], dim, padded)
    work = take(counter)
    while work < total:
        # Likely one's own next work. It is not taken yet: another thread may be free for it before.
        following = counter[0]
        first, rows = blocks[work // kv_heads]
        own = _pages_of(work, blocks, places, window, kv_heads)
        later = _pages_of(following, blocks, places, window, kv_heads) if following < total else own
        upcoming = _wanted_next(own, later, numbers)
        positions = places[2][first : first + rows]
        _attend_block(first, rows, own, upcoming, query, cache, positions, layer, scratch, out)
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
