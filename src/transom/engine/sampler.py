"""From hidden rows to tokens and their logprobs, for all rows of a step at once.

A token drawn is a pure function of (logits, sampling params, position, choice); see `kernels.draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from transom.engine import sequence as sequences
from transom.engine.attention import floats
from transom.engine.kernels.arrays import Flags, Floats, Ints, Longs
from transom.engine.kernels.read import DRAW, ENTROPY, KL, MASS, NOTHING, read_rows
from transom.engine.penalties import Penalties
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob, Verdict
from transom.schema.measures import Measured, Measures

NAME = "gumbel-max/philox4x32-10/v4"

_BLOCK = 64
"""Rows whose logits exist at once, which bounds memory for long prompts."""

Head = Callable[[Tensor], Tensor]
"""Hidden rows [rows, width] to logits [rows, vocabulary]."""


@dataclass(frozen=True, slots=True)
class Read:
    """What one hidden row is wanted for.

    To draw the next token, to look up a known one of the prompt, or to judge a known one behind it.
    """

    sequence: sequences.Sequence
    token_id: int = DRAW
    at: int = 0
    """Of a known token, in the sequence."""

    @property
    def position(self) -> int:
        """Of the token, in the sequence."""
        return len(self.sequence.tokens) if self.token_id == DRAW else self.at

    @property
    def is_scored(self) -> bool:
        """Whether the token belongs to the prompt."""
        return self.position < self.sequence.prompt_length

    @property
    def is_judged(self) -> bool:
        """Whether the token is known and belongs to what could have been drawn."""
        return self.token_id != DRAW and not self.is_scored

    @property
    def top(self) -> int:
        """How many of the likeliest tokens to report."""
        params = self.sequence.sampling
        return (params.prompt_logprobs if self.is_scored else params.logprobs) or 0

    @property
    def measures(self) -> Measures | None:
        """What to measure."""
        params = self.sequence.sampling
        return params.prompt_measures if self.is_scored else params.measures

    @property
    def whole(self) -> bool:
        """Whether the distribution is to be reported."""
        params, position = self.sequence.sampling, self.position
        if self.is_scored:
            return position in params.prompt_distributions
        return position - self.sequence.prompt_length in params.distributions

    @property
    def penalties(self) -> Penalties | None:
        """What is taken from the logits before it is drawn."""
        return None if self.is_scored else self.sequence.penalties_before(self.position)


def read(head: Head, hidden: Tensor, reads: Sequence[Read]) -> list[TokenLogprob]:
    """One token for each hidden row [rows, width].

    Raises:
        FloatingPointError: the model's logits are not finite.
    """
    found: list[TokenLogprob] = []
    for start in range(0, len(reads), _BLOCK):
        logits = floats(head(hidden[start : start + _BLOCK]))
        found.extend(_read_block(logits, reads[start : start + _BLOCK]))
    return found


def warm_up() -> None:
    """Compile the kernels, which takes seconds on a new machine, before anybody waits for a token."""
    params = SamplingParams(seed=0, max_tokens=1, logprobs=1)
    request = SequenceRequest(sequence_id="", prompt_token_ids=(0,), sampling=params)
    read(lambda rows: rows, torch.zeros(1, 4), [Read(sequences.Sequence(request))])


def _read_block(logits: Floats, reads: Sequence[Read]) -> list[TokenLogprob]:
    shaped, is_shaped = _shape(logits, reads)
    params = [item.sequence.sampling for item in reads]
    counts = np.array([item.top for item in reads], np.int64)
    tokens = np.array([item.token_id for item in reads], np.int64)
    logprobs, ranks = np.empty(len(reads), np.float32), np.empty(len(reads), np.int64)
    top_ids = np.zeros((len(reads), int(counts.max())), np.int32)
    top_logprobs = np.zeros(top_ids.shape, np.float32)
    extra = _Extra.of(reads, logits.shape[1])
    judged = np.array([item.is_judged for item in reads], np.bool_)
    verdicts = judged, np.zeros(len(reads), np.int64), np.zeros(len(reads), np.float32)
    read_rows(
        logits,
        shaped,
        is_shaped,
        (
            np.array([p.temperature for p in params], np.float64),
            np.array([p.top_k for p in params], np.int64),
            np.array([p.top_p for p in params], np.float64),
            np.array([p.min_p for p in params], np.float64),
        ),
        (
            np.array([p.seed % 2**64 for p in params], np.uint64),
            np.array([item.position for item in reads], np.int64),
            np.array([item.sequence.request.choice for item in reads], np.int64),
        ),
        counts,
        extra.wanted,
        verdicts,
        tokens,
        logprobs,
        ranks,
        top_ids,
        top_logprobs,
        extra.measures,
        extra.wholes,
    )
    if not np.isfinite(logprobs).all():
        raise FloatingPointError("the model's logits are not finite after this prompt")
    found = _report(tokens, logprobs, ranks, counts, top_ids, top_logprobs)
    for row in np.flatnonzero(judged).tolist():
        verdict = Verdict(int(verdicts[1][row]), float(verdicts[2][row]))
        found[row] = replace(found[row], verdict=verdict)
    return extra.added(found, reads)


@dataclass(frozen=True, slots=True)
class _Extra:
    """What rows are wanted for beside tokens and their logprobs, which is mostly nothing."""

    wanted: tuple[Longs, Longs]
    measures: Floats
    wholes: Floats

    @staticmethod
    def of(reads: Sequence[Read], vocabulary: int) -> _Extra:
        """Room for all that is wanted."""
        ks, places = np.full((2, len(reads)), NOTHING, np.int64)
        whole = [row for row, item in enumerate(reads) if item.whole]
        places[whole] = np.arange(len(whole))
        for row, item in enumerate(reads):
            if item.measures is not None:
                ks[row] = item.measures.top_k_mass
        return _Extra(
            (ks, places),
            np.zeros((len(reads), 3), np.float32),
            np.empty((len(whole), vocabulary), np.float32),
        )

    def added(self, tokens: list[TokenLogprob], reads: Sequence[Read]) -> list[TokenLogprob]:
        """The tokens, with what was wanted beside."""
        ks, places = self.wanted
        for row in np.flatnonzero((ks != NOTHING) | (places != NOTHING)).tolist():
            place = places[row]
            whole = None if place == NOTHING else self.wholes[place].astype("<f4", copy=False).tobytes()
            measured = _measured(reads[row].measures, self.measures[row].tolist())
            tokens[row] = replace(tokens[row], measured=measured, distribution=whole)
        return tokens


def _measured(wanted: Measures | None, values: list[float]) -> Measured | None:
    if wanted is None:
        return None
    return Measured(
        entropy=values[ENTROPY] if wanted.entropy else None,
        top_k_mass=values[MASS] if wanted.top_k_mass else None,
        kl=values[KL] if wanted.kl else None,
    )


def _report(
    tokens: Longs, logprobs: Floats, ranks: Longs, counts: Longs, top_ids: Ints, top_logprobs: Floats
) -> list[TokenLogprob]:
    tops = zip(counts.tolist(), top_ids.tolist(), top_logprobs.tolist(), strict=True)
    rows = zip(tokens.tolist(), logprobs.tolist(), ranks.tolist(), tops, strict=True)
    return [
        TokenLogprob(token, logprob, rank, tuple(zip(ids[:count], values[:count], strict=True)))
        for token, logprob, rank, (count, ids, values) in rows
    ]


def _shape(logits: Floats, reads: Sequence[Read]) -> tuple[Floats, Flags]:
    """Logits after penalties and bias, and which rows differ; a copy only where some row does."""
    shaped, is_shaped = logits, np.zeros(len(reads), np.bool_)
    for row, item in enumerate(reads):
        # Those of a forced sequence are counted on from row to row.
        penalties = item.penalties
        if penalties:
            if shaped is logits:
                shaped = logits.copy()
            penalties.apply(shaped[row])
            is_shaped[row] = True
    return shaped, is_shaped
