"""What `attention` computes, for a cache in pairs of bfloat16, by `amx`.

Queries and weights are rounded to bfloat16 as well; scores, exponentials and sums are float32. A page is
always multiplied whole: slots that a row may not see have the weight zero, which adds nothing to a finite
number. So that it meets nothing else, a page that some row of a block sees in part is copied without what no
row sees; and if what is left of it is not finite, the rows of the block are computed one by one.
"""

from __future__ import annotations

import numpy as np

from transom.engine.kernels import amx
from transom.engine.kernels.amx import LINES, STEP
from transom.engine.kernels.arrays import Floats, Ints, Longs, Operand, Words
from transom.engine.kernels.bfloat16 import hand_over
from transom.engine.kernels.cache import PAGE, sees
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.share import take
from transom.engine.kernels.softmax import soften
from transom.engine.kernels.tile import LANES

_WHOLE, _HALF = 64, 32
"""Bytes of a line of 16 pairs, and of the 8 pairs of slots in a page."""

_PAIRS = PAGE // 2

_EDGES = 4
"""Most pages that rows of a block see in part: two where their windows begin, two where they end."""

_FETCHED = 32
"""Pages that memory is asked for before they are read; many more would not stay in the second cache."""

_TOGETHER = 4 * LANES
"""Dimensions of a value that are summed side by side."""

SHAPES = amx.shapes(
    [
        [(lines, _WHOLE)] * 5 + [(lines, _HALF), (LINES, _WHOLE), (_PAIRS, _WHOLE)]
        for lines in range(LINES + 1)
    ]
)
"""By the number of lines: four registers of sums, one of queries, of weights, of keys, of values."""

_EXPONENTS = np.uint32(0x7F80)
_SHIFT = np.uint32(16)

Cache = tuple[Words, Words]
"""See `cache`."""

Places = tuple[Ints, Ints, Ints]
"""Tables, sequence of each row, position of each row; see `attention.attend`."""

Layer = tuple[tuple[np.float32, int, np.float32], Floats, int]
"""Shape, sinks and dimensions of a value; see `attention.attend`."""

Reach = tuple[Ints, int, int, tuple[int, int]]
"""What rows see: the pages in the cache; the first row's position; the first page's number in the sequence;
and `_edges`."""

Scratch = tuple[Words, Floats, Words, Floats, Floats, Words]
"""Of a thread: queries, scores, weights, results, sums of weights; copies of pages that are seen in part."""


@kernel
def _new_scratch(lines: int, pages: int, cache: Cache) -> Scratch:
    """Room for blocks of at most so many lines and pages."""
    depth, padded = cache[0].shape[2], cache[1].shape[3]
    tall = -(-lines // LINES) * LINES
    # A page more to a line, so that the lines do not fall on the same few places of the processor's cache.
    width = (pages + 1) * PAGE
    return (
        np.zeros((tall, depth), np.uint32),
        np.empty((tall, width), np.float32),
        np.empty((tall, width // 2), np.uint32),
        np.empty((tall, padded), np.float32),
        np.empty(tall, np.float32),
        np.empty((_EDGES * _PAIRS, padded), np.uint32),
    )


@kernel
def _edges(position: int, rows: int, first_page: int, window: int) -> tuple[int, int]:
    """Pages before the first and from the second on, each of which some of the rows see in part."""
    last_low = sees(position + rows - 1, first_page, window)[0]
    first_high = sees(position, first_page, window)[1]
    return -(-last_low // PAGE), first_high // PAGE


@kernel
def _is_edge(page: int, edges: tuple[int, int]) -> bool:
    """Whether some row sees the page in part, so that a copy of it is read."""
    return page < edges[0] or page >= edges[1]


@kernel
def _copy_seen(page: Words, low: int, high: int, out: Words) -> None:
    """The slots from `low` up to `high` of a page, and zeros in the place of others."""
    for pair in range(_PAIRS):
        mask = np.uint32(0)
        if low <= 2 * pair < high:
            mask |= np.uint32(0x0000FFFF)
        if low <= 2 * pair + 1 < high:
            mask |= np.uint32(0xFFFF0000)
        for d in range(page.shape[1]):
            out[pair, d] = page[pair, d] & mask


@kernel
def _is_finite(pairs: Words) -> bool:
    """Whether every number of the pairs is finite."""
    worst = np.uint32(0)
    for word in pairs.flat:
        worst = max(worst, word & _EXPONENTS, (word >> _SHIFT) & _EXPONENTS)
    return bool(worst != _EXPONENTS)


@kernel
def _score(queries: Words, first: int, keys: Words, at: int, scores: Floats, column: int) -> None:
    """Scores of a page's slots, for the registers' lines of queries from `first` on."""
    depth = queries.shape[1]
    amx.clear(0)
    for k in range(0, depth, STEP):
        amx.load(4, (queries, first * depth + k, depth))
        amx.load(6, (keys, at + k * PAGE, PAGE))
        amx.add_products(0, 4, 6)
    amx.save(0, (scores, first * scores.shape[1] + column, scores.shape[1]))


@kernel
def _add_page(weights: Words, at: int, values: Words, first: int, width: int, together: bool) -> None:
    """Add a page's values, weighed, to one register of sums, or to four."""
    amx.load(5, (weights, at, weights.shape[1]))
    amx.load(7, (values, first, width))
    amx.add_products(0, 5, 7)
    if together:
        amx.load(7, (values, first + LANES, width))
        amx.add_products(1, 5, 7)
        amx.load(7, (values, first + 2 * LANES, width))
        amx.add_products(2, 5, 7)
        amx.load(7, (values, first + 3 * LANES, width))
        amx.add_products(3, 5, 7)


@kernel
def _mix(
    first: int,
    d: int,
    together: bool,
    table: Ints,
    kv_head: int,
    values: Words,
    edges: tuple[int, int],
    scratch: Scratch,
) -> None:
    """Some dimensions of the results of the registers' lines from `first` on."""
    _, _, weights, mixed, _, copies = scratch
    heads, padded = values.shape[1], values.shape[3]
    amx.clear(0)
    amx.clear(1)
    amx.clear(2)
    amx.clear(3)
    copied = 0
    for page in range(table.shape[0]):
        at = first * weights.shape[1] + page * _PAIRS
        if _is_edge(page, edges):
            _add_page(weights, at, copies, copied * _PAIRS * padded + d, padded, together)
            copied += 1
        else:
            begin = (table[page] * heads + kv_head) * _PAIRS * padded
            _add_page(weights, at, values, begin + d, padded, together)
    place = first * padded + d
    amx.save(0, (mixed, place, padded))
    if together:
        amx.save(1, (mixed, place + LANES, padded))
        amx.save(2, (mixed, place + 2 * LANES, padded))
        amx.save(3, (mixed, place + 3 * LANES, padded))


@kernel
def _reach(places: Places, first: int, rows: int, window: int) -> Reach:
    """What the rows from `first` on, at consecutive positions of one sequence, see."""
    tables, row_sequence, row_position = places
    position = row_position[first]
    first_page = sees(position, 0, window)[0] // PAGE
    last_page = (position + rows - 1) // PAGE
    table = tables[row_sequence[first], first_page : last_page + 1]
    return table, position, first_page, _edges(position, rows, first_page, window)


@kernel
def _copy_edges(reach: Reach, rows: int, kv_head: int, window: int, values: Words, copies: Words) -> bool:
    """Copy the pages that some row sees in part; whether every number that some row sees there is finite."""
    table, position, first_page, edges = reach
    low, high = sees(position, first_page, window)[0], sees(position + rows - 1, first_page, window)[1]
    copied = 0
    for page in range(table.shape[0]):
        if _is_edge(page, edges):
            place = copies[copied * _PAIRS : (copied + 1) * _PAIRS]
            _copy_seen(values[table[page], kv_head], low - page * PAGE, high - page * PAGE, place)
            copied += 1
    return _is_finite(copies[: copied * _PAIRS])


@kernel
def _fetch_pages(table: Ints, kv_head: int, cache: Cache) -> None:
    """Ask memory for what one row reads once; what several read is waited for once."""
    for part in cache:
        size = part.shape[2] * part.shape[3]
        for page in table[:_FETCHED]:
            amx.fetch((part, (page * part.shape[1] + kv_head) * size, 0), size // LANES)


@kernel
def _hand_out(scratch: Scratch, value_dim: int, out: Operand) -> None:
    """Divide the results by the sums of weights; `out` is [rows, heads, value_dim] or pairs of these."""
    mixed, totals = scratch[3], scratch[4]
    group = out.shape[1]
    for line in range(out.shape[0] * group):
        for d in range(mixed.shape[1]):
            mixed[line, d] /= totals[line]
        hand_over(mixed[line, :value_dim], out[line // group, line % group])


@kernel
def _attend_rows(
    reach: Reach,
    first: int,
    rows: int,
    kv_head: int,
    query: Floats,
    cache: Cache,
    layer: Layer,
    out: Operand,
    scratch: Scratch,
    shaped: int,
) -> int:
    """Attention of rows whose edges have been copied, for the heads that share one head of the cache."""
    table, position, first_page, edges = reach
    (keys, values), (shape, sinks, value_dim) = cache, layer
    queries, scores, weights, mixed, totals, _ = scratch
    group, pages, padded = query.shape[1] // keys.shape[1], table.shape[0], mixed.shape[1]
    lines = rows * group
    # Parts of equal height, so that the registers need not be shaped again between them.
    tall = -(-lines // -(-lines // LINES))
    if shaped != tall:
        amx.shape(SHAPES, tall)
    if rows == 1:
        _fetch_pages(table, kv_head, cache)
    for line in range(lines):
        own = query[first + line // group, kv_head * group + line % group]
        hand_over(own, queries[line, : (own.shape[0] + 1) // 2])
    for part in range(0, lines, tall):
        for page in range(pages):
            at = (table[page] * keys.shape[1] + kv_head) * keys.shape[2] * PAGE
            _score(queries, part, keys, at, scores, page * PAGE)
        for line in range(part, min(lines, part + tall)):
            seen = sees(position + line // group, first_page, shape[1])
            own, light = (scores, line * scores.shape[1], 1), (weights, line * weights.shape[1], 1)
            totals[line] = soften(own, light, seen, pages, shape, sinks[kv_head * group + line % group])
        for d in range(0, padded - padded % _TOGETHER, _TOGETHER):
            _mix(part, d, True, table, kv_head, values, edges, scratch)
        for d in range(padded - padded % _TOGETHER, padded, LANES):
            _mix(part, d, False, table, kv_head, values, edges, scratch)
    _hand_out(scratch, value_dim, out[first : first + rows, kv_head * group : (kv_head + 1) * group])
    return int(tall)


@kernel
def _attend_block(
    first: int,
    rows: int,
    kv_head: int,
    query: Floats,
    cache: Cache,
    places: Places,
    layer: Layer,
    out: Operand,
    scratch: Scratch,
    shaped: int,
) -> int:
    """The rows of a block, side by side where no row can meet what it may not see.

    The registers are shaped for `shaped` lines; returns for how many they are afterwards.
    """
    window, copies = layer[0][1], scratch[5]
    reach = _reach(places, first, rows, window)
    finite = _copy_edges(reach, rows, kv_head, window, cache[1], copies)
    if finite or rows == 1:
        return _attend_rows(reach, first, rows, kv_head, query, cache, layer, out, scratch, shaped)
    for row in range(first, first + rows):
        reach = _reach(places, row, 1, window)
        _copy_edges(reach, 1, kv_head, window, cache[1], copies)
        shaped = _attend_rows(reach, row, 1, kv_head, query, cache, layer, out, scratch, shaped)
    return shaped


@kernel
def attend_by_squares(
    counter: Longs,
    query: Floats,
    cache: Cache,
    places: Places,
    blocks: Ints,
    layer: Layer,
    out: Operand,
) -> None:
    """One thread's part of `attention.attend`."""
    kv_heads = cache[0].shape[1]
    total = blocks.shape[0] * kv_heads
    longest = 0
    for first, rows in blocks:
        longest = max(longest, int(places[2][first] + rows))
    scratch = _new_scratch(int(blocks[:, 1].max()) * (query.shape[1] // kv_heads), longest // PAGE + 1, cache)
    shaped = 0
    work = take(counter)
    while work < total:
        first, rows = blocks[work // kv_heads]
        shaped = _attend_block(
            first, rows, work % kv_heads, query, cache, places, layer, out, scratch, shaped
        )
        work = take(counter)
    amx.release()
