"""One forward over a mixed batch: chunks of many sequences as the rows of one packed sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention, RowMap
from transom.engine.kernels.attention import Ints
from transom.engine.scheduler import Chunk


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows, and which of them need logits."""

    token_ids: Ints
    rows: RowMap
    logit_rows: list[int]
    logit_counts: list[int]
    """How many of `logit_rows` belong to each chunk."""


class Runner:
    """Knows the model and the cache; knows nothing of requests, sampling or text."""

    def __init__(self, model: PreTrainedModel, attention: PagedAttention, row_multiple: int) -> None:
        self._model = model
        self._attention = attention
        self._row_multiple = row_multiple

    def run(self, chunks: list[Chunk]) -> list[Tensor]:
        """Compute the chunks and store their keys and values.

        Returns:
            For each chunk the logits [rows, vocabulary] of its `logit_positions`.
        """
        batch = self._pack(chunks)
        self._attention.set_rows(batch.rows)
        keep = torch.tensor(batch.logit_rows or [0], dtype=torch.long)
        with torch.inference_mode():
            logits: Tensor = self._model(
                input_ids=torch.from_numpy(batch.token_ids.astype(np.int64))[None],
                position_ids=torch.from_numpy(batch.rows.position.astype(np.int64))[None],
                use_cache=False,
                logits_to_keep=keep,
            ).logits[0]
        for chunk in chunks:
            chunk.sequence.computed = chunk.end
        return list(torch.split(logits[: sum(batch.logit_counts)], batch.logit_counts))

    def _pack(self, chunks: list[Chunk]) -> Batch:
        total = sum(chunk.length for chunk in chunks)
        padded = total + -total % self._row_multiple
        # The table after the last belongs to padding rows: all of it is the scratch page.
        tables = np.zeros((len(chunks) + 1, max(len(chunk.sequence.pages) for chunk in chunks)), np.int32)
        token_ids, position = np.zeros(padded, np.int32), np.zeros(padded, np.int32)
        sequence = np.full(padded, len(chunks), np.int32)
        logit_rows: list[int] = []
        logit_counts: list[int] = []
        at = 0
        for index, chunk in enumerate(chunks):
            rows = slice(at, at + chunk.length)
            tables[index, : len(chunk.sequence.pages)] = chunk.sequence.pages
            token_ids[rows] = chunk.sequence.tokens[chunk.start : chunk.end]
            position[rows] = np.arange(chunk.start, chunk.end)
            sequence[rows] = index
            wanted = logit_positions(chunk)
            logit_rows.extend(at + p - chunk.start for p in wanted)
            logit_counts.append(len(wanted))
            at += chunk.length
        return Batch(token_ids, RowMap(tables, sequence, position), logit_rows, logit_counts)


def scored_positions(chunk: Chunk) -> range:
    """Positions whose logits score the next token of the prompt."""
    sequence = chunk.sequence
    if sequence.prompt_logprobs is None or sequence.finished_prompt_logprobs:
        return range(0)
    return range(chunk.start, min(chunk.end, sequence.prompt_length - 1))


def logit_positions(chunk: Chunk) -> list[int]:
    """Positions of the chunk whose logits somebody needs, in order."""
    positions = list(scored_positions(chunk))
    if chunk.completes and chunk.sequence.wants_token:
        positions.append(chunk.end - 1)
    return positions
