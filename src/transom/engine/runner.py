"""One forward over a mixed batch: chunks of many sequences as the rows of one packed sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transom.engine.attention import PagedAttention, RowMap
from transom.engine.body import SplitModel
from transom.engine.chunks import Chunk, judged_positions, scored_positions
from transom.engine.kernels.arrays import Ints
from transom.engine.pages import pages_of
from transom.engine.places import LAST, Hooks, touched
from transom.internals.board import Board, Entry, Posted, Where
from transom.internals.restart import Restart


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
        # Whoever enters at a later layer comes after those who are there before.
        ordered = sorted(chunks, key=_entry_layer)
        batch = self._pack(chunks, ordered)
        self._attention.set_rows(batch.rows)
        self._board.post(_posted(ordered))
        self._board.entries = list(_entries(ordered))
        self._restore(ordered)
        with Hooks(self._board, self._modules):
            hidden = self._model.hidden(_longs(batch.token_ids), _longs(batch.rows.position))
        if self._board.wants(LAST.point):
            hidden = touched(self._board, LAST, hidden)
        self._board.post(())  # what was read, and the room that it takes, is not held until the next forward
        self._keep(chunks)
        return hidden[torch.tensor(batch.wanted, dtype=torch.long)]

    @property
    def layers(self) -> int:
        """Of the model."""
        return len(self._attention.specs)

    def layers_of(self, chunk: Chunk) -> int:
        """How many layers the rows of a chunk go through."""
        return self.layers - _entry_layer(chunk)

    def _restore(self, chunks: list[Chunk]) -> None:
        """Give sequences that begin in the middle what lies before."""
        for chunk in chunks:
            restart = _restart(chunk)
            if restart is not None and chunk.start == restart.position:
                own = chunk.sequence.pages[: pages_of(restart.position)]
                self._attention.restore(own, restart.pages, restart.layer)

    def _keep(self, chunks: list[Chunk]) -> None:
        """Copy the pages of sequences in whose middle others will begin."""
        for chunk in chunks:
            taps = chunk.sequence.taps
            if taps is not None and taps.keeps_pages and chunk.completes:
                taps.pages = self._attention.saved(chunk.sequence.pages)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, vocabulary]; a row's logits do not depend on the others."""
        return self._model.logits(hidden)

    def _pack(self, chunks: list[Chunk], ordered: list[Chunk]) -> Batch:
        total = sum(chunk.length for chunk in chunks)
        tables = np.zeros((len(chunks), max(len(chunk.sequence.pages) for chunk in chunks)), np.int32)
        token_ids, position = np.empty(total, np.int32), np.empty(total, np.int32)
        sequence = np.empty(total, np.int32)
        begins: dict[int, int] = {}
        at = 0
        for index, chunk in enumerate(ordered):
            rows = slice(at, at + chunk.length)
            tables[index, : len(chunk.sequence.pages)] = chunk.sequence.pages
            token_ids[rows] = chunk.sequence.tokens[chunk.start : chunk.end]
            position[rows] = np.arange(chunk.start, chunk.end)
            sequence[rows] = index
            begins[id(chunk)] = at
            at += chunk.length
        wanted = [
            begins[id(chunk)] + place - chunk.start for chunk in chunks for place in wanted_positions(chunk)
        ]
        return Batch(token_ids, RowMap.of(tables, sequence, position), wanted)


def _restart(chunk: Chunk) -> Restart | None:
    taps = chunk.sequence.taps
    return None if taps is None else taps.restart


def _entry_layer(chunk: Chunk) -> int:
    restart = _restart(chunk)
    return 0 if restart is None else restart.layer


def _entries(chunks: list[Chunk]) -> Iterator[Entry]:
    """The rows that come in at a layer, of chunks in the order of their rows."""
    at = 0
    for chunk in chunks:
        restart = _restart(chunk)
        if restart is not None:
            known = restart.residual[chunk.start - restart.position : chunk.end - restart.position]
            yield Entry(restart.layer, slice(at, at + chunk.length), known)
        at += chunk.length


def _posted(chunks: list[Chunk]) -> Iterator[Posted]:
    """What the sequences of the chunks do inside, at their rows of the batch."""
    at = 0
    for chunk in chunks:
        if chunk.sequence.taps is not None:
            yield from chunk.sequence.taps.posted(chunk.start, chunk.end, at)
        at += chunk.length


def wanted_positions(chunk: Chunk) -> list[int]:
    """Positions of the chunk whose logits somebody needs, in order.

    First those that score the prompt, then those that judge what is known, or the one that draws.
    """
    positions = [*scored_positions(chunk), *judged_positions(chunk)]
    if chunk.completes and chunk.sequence.wants_token:
        positions.append(chunk.end - 1)
    return positions


def _longs(values: Ints) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
