"""One forward over a mixed batch: chunks of many sequences as the rows of one packed sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transom.engine.attention import PagedAttention, RowMap
from transom.engine.body import SplitModel
from transom.engine.kernels.arrays import Ints
from transom.engine.places import LAST, Hooks, touched
from transom.engine.scheduler import Chunk, scored_positions
from transom.internals.board import Board, Posted, Where


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows, and which of them somebody asks about."""

    token_ids: Ints
    rows: RowMap
    wanted: list[int]


class Runner:
    """Knows the model and the cache; knows nothing of requests, sampling or text."""

    def __init__(
        self,
        model: SplitModel,
        attention: PagedAttention,
        board: Board,
        modules: dict[Where, tuple[nn.Module, bool]],
    ) -> None:
        self._model = model
        self._attention = attention
        self._board = board
        self._modules = modules

    def run(self, chunks: list[Chunk]) -> Tensor:
        """Compute the chunks and store their keys and values.

        Returns:
            The hidden rows [rows, width] of the chunks' `wanted_positions`, chunk after chunk.
        """
        batch = self._pack(chunks)
        self._attention.set_rows(batch.rows)
        self._board.post(_posted(chunks))
        with Hooks(self._board, self._modules):
            hidden = self._model.hidden(_longs(batch.token_ids), _longs(batch.rows.position))
        if self._board.wants(LAST.point):
            hidden = touched(self._board, LAST, hidden)
        return hidden[torch.tensor(batch.wanted, dtype=torch.long)]

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, vocabulary]; a row's logits do not depend on the others."""
        return self._model.logits(hidden)

    def _pack(self, chunks: list[Chunk]) -> Batch:
        total = sum(chunk.length for chunk in chunks)
        tables = np.zeros((len(chunks), max(len(chunk.sequence.pages) for chunk in chunks)), np.int32)
        token_ids, position = np.empty(total, np.int32), np.empty(total, np.int32)
        sequence = np.empty(total, np.int32)
        wanted: list[int] = []
        at = 0
        for index, chunk in enumerate(chunks):
            rows = slice(at, at + chunk.length)
            tables[index, : len(chunk.sequence.pages)] = chunk.sequence.pages
            token_ids[rows] = chunk.sequence.tokens[chunk.start : chunk.end]
            position[rows] = np.arange(chunk.start, chunk.end)
            sequence[rows] = index
            wanted.extend(at + p - chunk.start for p in wanted_positions(chunk))
            at += chunk.length
        return Batch(token_ids, RowMap.of(tables, sequence, position), wanted)


def _posted(chunks: list[Chunk]) -> Iterator[Posted]:
    """What the sequences of the chunks do inside, at their rows of the batch."""
    at = 0
    for chunk in chunks:
        if chunk.sequence.taps is not None:
            yield from chunk.sequence.taps.posted(chunk.start, chunk.end, at)
        at += chunk.length


def wanted_positions(chunk: Chunk) -> list[int]:
    """Positions of the chunk whose logits somebody needs, in order: the scored ones, then the drawn one."""
    positions = list(scored_positions(chunk))
    if chunk.completes and chunk.sequence.wants_token:
        positions.append(chunk.end - 1)
    return positions


def _longs(values: Ints) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
