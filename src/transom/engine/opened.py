"""A decoder layer taken step by step, so that whoever has posted something can read and write between steps.

Every number is computed by the kernel that computes it in the closed layer, in the same order of operations,
so a row has the same bits in either. A layer inside which nothing is posted stays closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import TypeAlias

import numpy as np

from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.attention import attend
from transom.engine.kernels.fused import add, gate, rotate_and_store
from transom.engine.parts import MLP, Attention, Layer, Norm, Rotation
from transom.engine.patterns import touch_patterns
from transom.internals.board import STREAM, Board, Entry

Closed: TypeAlias = Callable[[Floats, Rotation, int, int], None]
"""Runs the layers from one up to another, counted from the first of them, over a residual stream in place."""


def run_layers(
    layers: Sequence[Layer], closed: Closed, residual: Floats, rotation: Rotation, board: Board
) -> None:
    """Run layers that follow each other, opening those at which something is posted.

    Args:
        layers: in their order.
        closed: runs some of them.
        residual: [rows, width], written over.
        rotation: of the rows.
        board: what is posted.
    """
    if not board.active:
        closed(residual, rotation, 0, len(layers))
    elif not board.entries:
        _run_some(layers, closed, residual, rotation, board, range(len(layers)))
    else:
        _run_entering(layers, closed, residual, rotation, board)


def _run_entering(
    layers: Sequence[Layer], closed: Closed, residual: Floats, rotation: Rotation, board: Board
) -> None:
    """Run all layers; rows that enter at one of them are no part of those before it."""
    paged = layers[0].attention.paged
    whole = paged.rows
    begins = sorted({0, *(entry.layer for entry in board.entries)})
    for begin, end in pairwise([*begins, len(layers)]):
        count = _present(board.entries, begin, residual)
        paged.set_rows(whole.first(count))
        cos, sin = rotation
        if count:
            _run_some(layers, closed, residual[:count], (cos[:count], sin[:count]), board, range(begin, end))
    paged.set_rows(whole)


def _present(entries: Sequence[Entry], layer: int, residual: Floats) -> int:
    """How many rows there are in a layer, once those that enter there have come in."""
    for entry in entries:
        if entry.layer == layer:
            residual[entry.rows] = entry.residual
    later = [entry.rows.start for entry in entries if entry.layer > layer]
    return min(later, default=len(residual))


def _run_some(
    layers: Sequence[Layer],
    closed: Closed,
    residual: Floats,
    rotation: Rotation,
    board: Board,
    which: range,
) -> None:
    for is_open, group in groupby(which, lambda i: board.opens(layers[i].attention.index)):
        found = list(group)
        if not is_open:
            _run_closed(layers, closed, residual, rotation, board, found)
        for index in found if is_open else ():
            run_layer(layers[index], residual, rotation, board)


def _run_closed(
    layers: Sequence[Layer],
    closed: Closed,
    residual: Floats,
    rotation: Rotation,
    board: Board,
    which: Sequence[int],
) -> None:
    """Run layers of which at most the ends are touched, as many in one go as nobody wants to see between."""
    before, after = STREAM
    begin = which[0]
    for index in which:
        number = layers[index].attention.index
        if board.wants(before, number):
            if begin < index:
                closed(residual, rotation, begin, index)
            begin = index
            board.touch(before, number, residual)
        if board.wants(after, number):
            closed(residual, rotation, begin, index + 1)
            begin = index + 1
            board.touch(after, number, residual)
    if begin <= which[-1]:
        closed(residual, rotation, begin, which[-1] + 1)


def run_layer(layer: Layer, residual: Floats, rotation: Rotation, board: Board) -> None:
    """`layer(residual, rotation)`, touching each point; `residual` [rows, width] is written over."""
    index = layer.attention.index
    board.touch("resid_pre", index, residual)
    seen = layer.attention_norm(residual)
    board.touch("attn_in", index, seen)
    attended = run_attention(layer.attention, seen, rotation, board)
    board.touch("attn_out", index, attended)
    attended = _normed(attended, layer.attended_norm)
    board.touch("attn_out_post", index, attended)
    add(residual, attended)
    board.touch("resid_mid", index, residual)
    seen = layer.mlp_norm(residual)
    board.touch("mlp_in", index, seen)
    found = run_mlp(layer.mlp, seen, index, board)
    board.touch("mlp_out", index, found)
    found = _normed(found, layer.output_norm)
    board.touch("mlp_out_post", index, found)
    add(residual, found)
    board.touch("resid_post", index, residual)


def run_attention(attention: Attention, seen: Floats, rotation: Rotation, board: Board) -> Floats:
    """`attention(seen, rotation)`, touching queries, keys, values and what each head gives."""
    first, last = attention.products
    index = attention.index
    cache, shape, sinks, value_dim, norms = attention.heads
    places, blocks, rotation = attention.paged.place(rotation)
    count, heads, kv_heads = seen.shape[0], sinks.shape[0], cache[0].shape[1]
    qkv = first(seen)
    dim = (qkv.shape[1] - kv_heads * value_dim) // (heads + kv_heads)
    ends = heads * dim, (heads + kv_heads) * dim
    board.touch("q", index, qkv[:, : ends[0]])
    board.touch("k", index, qkv[:, ends[0] : ends[1]])
    board.touch("value", index, qkv[:, ends[1] :])
    query = np.empty((count, heads, dim), np.float32)
    rotate_and_store(qkv, rotation, norms, places, cache, value_dim, query)
    board.touch("q_rot", index, query.reshape(count, -1))
    mixed = np.empty((count, heads, value_dim), np.float32)
    attend(query, cache, places, blocks, shape, sinks, value_dim, mixed, attention.threads)
    touch_patterns(attention, query, mixed, board)
    z = mixed.reshape(count, -1)
    board.touch("z", index, z)
    return last(z)


def run_mlp(mlp: MLP, seen: Floats, index: int, board: Board) -> Floats:
    """`mlp(seen)`, touching both branches and their product."""
    first, last = mlp.products
    both = first(seen)
    width = both.shape[1] // 2
    board.touch("mlp_pre", index, both[:, :width])
    board.touch("mlp_pre_linear", index, both[:, width:])
    inner = np.empty((seen.shape[0], width), np.float32)
    gate(both, mlp.gelu, inner)
    board.touch("mlp_act", index, inner)
    return last(inner)


def _normed(rows: Floats, norm: Norm) -> Floats:
    return norm(rows) if norm.weight.size else rows
