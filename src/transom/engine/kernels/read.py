"""From rows of logits to tokens and their logprobs, all rows of a step in one kernel."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.arrays import Flags, Floats, Ints, Longs
from transom.engine.kernels.compile import parallel_kernel
from transom.engine.kernels.draw import argmax, boundary, gumbel_max, rank, top, weigh

Doubles = NDArray[np.float64]
Seeds = NDArray[np.uint64]

DRAW = -1
"""In the place of a known token: draw one."""


@parallel_kernel
def read_rows(
    logits: Floats,
    shaped: Floats,
    is_shaped: Flags,
    params: tuple[Doubles, Longs, Doubles, Doubles],
    keys: tuple[Seeds, Longs, Longs],
    counts: Longs,
    tokens: Longs,
    logprobs: Floats,
    ranks: Longs,
    top_ids: Ints,
    top_logprobs: Floats,
) -> None:
    """Draw or look up one token for each row, and report it from the raw distribution.

    Args:
        logits: [rows, vocabulary], the model's own.
        shaped: the same after penalties and bias, to draw from; may be the same array.
        is_shaped: [rows], whether a row of `shaped` differs from that of `logits`.
        params: temperature, top_k, top_p and min_p of each row.
        keys: seed, position of the token, counted from the start of the sequence, and choice, of each row.
        counts: how many of the likeliest tokens to report.
        tokens: known tokens, or DRAW; drawn ones are written.
        logprobs: [rows], written: float64 log-softmax of the row, rounded to float32. Not finite where the
            logits have no finite maximum, and then nothing else of the row counts.
        ranks: [rows], written; 1 for the likeliest, ties by lower id first.
        top_ids: [rows, most of `counts`], written as far as `counts` says.
        top_logprobs: the same.
    """
    for row in numba.prange(logits.shape[0]):
        line, weights = logits[row], np.empty(logits.shape[1], np.float32)
        best = argmax(line)
        logprobs[row] = np.float32(np.nan)
        if best < 0:
            continue
        peak = line[best]
        total_of_line = weigh(line, peak, 1.0, weights)
        log_total = math.log(total_of_line)
        if tokens[row] == DRAW:
            own, temperature, total, favourite = shaped[row], params[0][row], total_of_line, best
            if is_shaped[row]:
                favourite = argmax(own)
            tokens[row] = favourite
            if temperature > 0.0:
                if is_shaped[row] or temperature != 1.0:
                    total = weigh(own, own[favourite], temperature, weights)
                filters = params[1][row], params[2][row], params[3][row]
                limit = boundary(own, favourite, temperature, weights, total, filters)
                key = keys[0][row], keys[1][row], keys[2][row]
                tokens[row] = gumbel_max(own, favourite, temperature, weights, limit, key)
        token = tokens[row]
        logprobs[row] = np.float32((float(line[token]) - float(peak)) - log_total)
        ranks[row] = rank(line, token)
        likeliest = top_ids[row, : counts[row]]
        top(line, likeliest)
        for i in range(likeliest.shape[0]):
            top_logprobs[row, i] = np.float32((float(line[likeliest[i]]) - float(peak)) - log_total)
