"""From rows of logits to tokens and their logprobs, all rows of a step in one kernel."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.arrays import Flags, Floats, Ints, Longs
from transom.engine.kernels.compile import kernel, parallel_kernel
from transom.engine.kernels.draw import argmax, boundary, gumbel_max, margin, rank, top, weigh
from transom.engine.kernels.measure import divergence, entropy, log_softmax, mass, summed

Doubles = NDArray[np.float64]
Seeds = NDArray[np.uint64]

DRAW = -1
"""In the place of a known token: draw one."""

NOTHING = -1
"""In the place of a k: measure nothing; in that of a row of `wholes`: it is not wanted."""

ENTROPY, MASS, KL = range(3)
"""Columns of `measures`."""


@parallel_kernel
def read_rows(
    logits: Floats,
    shaped: Floats,
    is_shaped: Flags,
    params: tuple[Doubles, Longs, Doubles, Doubles],
    keys: tuple[Seeds, Longs, Longs],
    counts: Longs,
    wanted: tuple[Longs, Longs],
    verdicts: tuple[Flags, Longs, Floats],
    tokens: Longs,
    logprobs: Floats,
    ranks: Longs,
    top_ids: Ints,
    top_logprobs: Floats,
    measures: Floats,
    wholes: Floats,
) -> None:
    """Draw or look up one token for each row, and report it from the raw distribution.

    Args:
        logits: [rows, vocabulary], the model's own.
        shaped: the same after penalties and bias, to draw from; may be the same array.
        is_shaped: [rows], whether a row of `shaped` differs from that of `logits`.
        params: temperature, top_k, top_p and min_p of each row.
        keys: seed, position of the token, counted from the start of the sequence, and choice, of each row.
        counts: how many of the likeliest tokens to report.
        wanted: of each row, the k of the mass to measure, 0 to measure but that, or NOTHING; and the row of
            `wholes` to fill, or NOTHING.
        verdicts: of each row, whether its known token is to be judged; written where it is, the token that
            would have been drawn, and the margin of the known one.
        tokens: known tokens, or DRAW; drawn ones are written.
        logprobs: [rows], written: float64 log-softmax of the row, rounded to float32. Not finite where the
            logits have no finite maximum, and then nothing else of the row counts.
        ranks: [rows], written; 1 for the likeliest, ties by lower id first.
        top_ids: [rows, most of `counts`], written as far as `counts` says.
        top_logprobs: the same.
        measures: [rows, 3], written where they are wanted: entropy, mass of the k likeliest tokens, and the
            divergence of what a token is drawn from, 0 for a known one that is not judged.
        wholes: [rows that want it, vocabulary], written: all logprobs.
    """
    for row in numba.prange(logits.shape[0]):
        line, weights = logits[row], np.empty(logits.shape[1], np.float32)
        best = argmax(line)
        logprobs[row] = np.float32(np.nan)
        if best < 0:
            continue
        peak = line[best]
        total = weigh(line, peak, 1.0, weights)
        log_total = math.log(total)
        k, whole = wanted[0][row], wanted[1][row]
        exact = 0.0
        if k != NOTHING:
            exact = summed(weights)
            measures[row, ENTROPY] = np.float32(entropy(line, peak, weights, exact))
            if k > 0:
                measures[row, MASS] = np.float32(mass(line, weights, exact, k))
        if whole != NOTHING:
            log_softmax(line, peak, log_total, wholes[whole])
        if tokens[row] == DRAW or verdicts[0][row]:
            own = params[0][row], params[1][row], params[2][row], params[3][row]
            key = keys[0][row], keys[1][row], keys[2][row]
            favourite = argmax(shaped[row]) if is_shaped[row] else best
            drawn, kl, missed = _draw(
                (line, peak, total, exact),
                (shaped[row], favourite, is_shaped[row]),
                weights,
                own,
                key,
                tokens[row],
            )
            if k != NOTHING:
                measures[row, KL] = np.float32(kl)
            verdicts[1][row], verdicts[2][row] = drawn, np.float32(missed)
            if tokens[row] == DRAW:
                tokens[row] = drawn
        token = tokens[row]
        logprobs[row] = np.float32((float(line[token]) - float(peak)) - log_total)
        ranks[row] = rank(line, token)
        likeliest = top_ids[row, : counts[row]]
        top(line, likeliest)
        for i in range(likeliest.shape[0]):
            top_logprobs[row, i] = np.float32((float(line[likeliest[i]]) - float(peak)) - log_total)


@parallel_kernel
def log_softmax_rows(logits: Floats, out: Floats) -> None:
    """All logprobs of each row [rows, vocabulary], with the bits of `wholes` in `read_rows`.

    Args:
        logits: of a model.
        out: [rows, vocabulary], written; not a number where the logits have no finite maximum.
    """
    for row in numba.prange(logits.shape[0]):
        line, weights = logits[row], np.empty(logits.shape[1], np.float32)
        best = argmax(line)
        if best < 0:
            out[row] = np.float32(np.nan)
        else:
            total = weigh(line, line[best], 1.0, weights)
            log_softmax(line, line[best], math.log(total), out[row])


@kernel
def _draw(
    raw: tuple[Floats, np.float32, float, float],
    shaped: tuple[Floats, int, bool],
    weights: Floats,
    params: tuple[float, int, float, float],
    key: tuple[np.uint64, int, int],
    known: int,
) -> tuple[int, float, float]:
    """A token, what is to be measured of its choice, and by how much a known one was missed.

    Measured is how far what it was drawn from is from `raw`; 0 where that is not wanted.

    Args:
        raw: the model's row, its highest logit, the sum of its weights, and their `summed`, or 0 where
            nothing is to be measured.
        shaped: the row to draw from, the token of its highest logit, and whether it differs from `raw`.
        weights: those of `raw`; they are overwritten.
        params: temperature, top_k, top_p, min_p.
        key: of the noise: seed, position, choice.
        known: a token to judge, or DRAW.
    """
    line, peak, total, exact = raw
    own, favourite, is_shaped = shaped
    temperature = params[0]
    if temperature <= 0.0:
        # All its weight is on one token.
        missed = 0.0 if known == DRAW else float(own[favourite]) - float(own[known])
        return favourite, math.log(total) - (float(line[favourite]) - float(peak)), missed
    if is_shaped or temperature != 1.0:
        total = weigh(own, own[favourite], temperature, weights)
    limit = boundary(own, favourite, temperature, weights, total, params[1:])
    token = gumbel_max(own, favourite, temperature, weights, limit, key, known)
    missed = 0.0 if known == DRAW else margin(own, favourite, temperature, limit, key, token, known)
    if exact == 0.0:
        return token, 0.0, missed
    kl = divergence(line, peak, math.log(exact), own, favourite, temperature, weights, limit)
    return token, kl, missed
