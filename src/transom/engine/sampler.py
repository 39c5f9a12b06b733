"""From logits to tokens and their logprobs, for all rows of a step at once.

A token drawn is a pure function of (logits, sampling params, position, choice); see `kernels.draw`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transom.engine.kernels.attention import Floats
from transom.engine.kernels.draw import Longs, draw, rank, top
from transom.engine.sequence import Sequence
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob

NAME = "gumbel-max/philox4x32-10/v1"

_BLOCK = 64
"""Rows whose log-softmax is taken at once, which bounds memory for long prompts."""


@dataclass(frozen=True, slots=True)
class Score:
    """One row whose token is known: the prompt's next token, to be looked up and not drawn."""

    token_id: int
    top: int


def draw_tokens(logits: Tensor, sequences: Collection[Sequence]) -> list[TokenLogprob]:
    """Draw the next token of each sequence from its row of `logits` [rows, vocabulary]."""
    shaped = _shape(logits, sequences)
    params = [sequence.sampling for sequence in sequences]
    tokens = np.empty(len(sequences), np.int64)
    draw(
        shaped,
        np.array([p.temperature for p in params], np.float64),
        np.array([p.top_k for p in params], np.int64),
        np.array([p.top_p for p in params], np.float64),
        np.array([p.min_p for p in params], np.float64),
        np.array([p.seed % 2**64 for p in params], np.uint64),
        np.array([len(sequence.tokens) for sequence in sequences], np.int64),
        np.array([sequence.request.choice for sequence in sequences], np.int64),
        tokens,
    )
    return look_up(logits, [Score(int(t), p.logprobs or 0) for t, p in zip(tokens, params, strict=True)])


def warm_up() -> None:
    """Compile the kernels, which takes seconds on a new machine, before anybody waits for a token."""
    params = SamplingParams(seed=0, max_tokens=1, logprobs=1)
    request = SequenceRequest(sequence_id="", prompt_token_ids=(0,), sampling=params)
    draw_tokens(torch.zeros(1, 4), [Sequence(request)])


def look_up(logits: Tensor, scores: list[Score]) -> list[TokenLogprob]:
    """Logprob, rank and most likely tokens of known tokens, from the raw distribution of each row."""
    found: list[TokenLogprob] = []
    for start in range(0, len(scores), _BLOCK):
        block = scores[start : start + _BLOCK]
        logprobs = torch.log_softmax(logits[start : start + _BLOCK].to(torch.float32), dim=-1).numpy()
        found.extend(_report(logprobs, block))
    return found


def _report(logprobs: Floats, scores: list[Score]) -> list[TokenLogprob]:
    tokens = np.array([score.token_id for score in scores], np.int64)
    ranks: Longs = np.empty(len(scores), np.int64)
    rank(logprobs, tokens, ranks)
    counts = np.array([score.top for score in scores], np.int32)
    ids = np.zeros((len(scores), max(1, int(counts.max()))), np.int32)
    top(logprobs, counts, ids)
    return [
        TokenLogprob(
            token_id=score.token_id,
            logprob=float(logprobs[row, score.token_id]),
            rank=int(ranks[row]),
            top=tuple((int(i), float(logprobs[row, i])) for i in ids[row, : score.top]),
        )
        for row, score in enumerate(scores)
    ]


def _shape(logits: Tensor, sequences: Collection[Sequence]) -> Floats:
    """Logits after penalties and bias, float32; a copy only where some request asks for either."""
    shaped = logits.to(torch.float32)
    if any(_is_shaped(sequence) for sequence in sequences):
        shaped = shaped.clone()
        for row, sequence in enumerate(sequences):
            if _is_shaped(sequence):
                _penalise(shaped[row].numpy(), sequence)
    array: Floats = shaped.numpy()
    return array


def _is_shaped(sequence: Sequence) -> bool:
    params = sequence.sampling
    penalised = (params.frequency_penalty or params.presence_penalty) and sequence.counts
    return bool(params.logit_bias or penalised)


def _penalise(line: Floats, sequence: Sequence) -> None:
    """OpenAI's formula, over generated tokens: logit - count * frequency - (count > 0) * presence + bias."""
    params = sequence.sampling
    for token_id, count in sorted(sequence.counts.items()):
        line[token_id] -= np.float32(count * params.frequency_penalty + params.presence_penalty)
    for token_id, bias in params.logit_bias:
        line[token_id] += np.float32(bias)
