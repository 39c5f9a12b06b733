"""Drawing a token: filters, then the Gumbel-max trick with noise only where it can decide.

Everything here is a function of one row of logits, its parameters, its seed and its position.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.attention import Floats, Ints
from transom.engine.kernels.compile import inline, parallel_kernel
from transom.engine.kernels.philox import Words, gumbel, philox

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Seeds = NDArray[np.uint64]

_ALL = 2**62
# _TAIL[k] >= 2^32 exp(-k): a word at or above it makes noise below k.
_TAIL = np.array([math.exp(-k) * 2.0**32 + 1.0 for k in range(64)])


@inline
def _argmax(logits: Floats) -> int:
    """Lowest token id among those with the highest logit."""
    best = 0
    for i in range(1, logits.shape[0]):
        if logits[i] > logits[best]:
            best = i
    return best


@inline
def _most_likely(logits: Floats, peak: np.float32, temperature: float, top_k: int, top_p: float) -> Longs:
    """Token ids by falling logit, then rising id: at least `top_k` of them and at least `top_p` of the mass.

    Widens a band below the peak until it holds enough, so that only a few tokens are ever sorted.
    """
    vocabulary = logits.shape[0]
    total = 0.0
    for i in range(vocabulary):
        total += math.exp((float(logits[i]) - float(peak)) / temperature)
    band = 4.0
    while True:
        floor = float(peak) - band * temperature
        count = 0
        mass = 0.0
        for i in range(vocabulary):
            if float(logits[i]) >= floor:
                count += 1
                mass += math.exp((float(logits[i]) - float(peak)) / temperature)
        if count == vocabulary or (count >= top_k and (top_p >= 1.0 or mass >= top_p * total * (1 + 1e-9))):
            break
        band = band * 2 if band < 1e6 else np.inf
    ids = np.empty(count, np.int64)
    negated = np.empty(count, np.float32)
    filled = 0
    for i in range(vocabulary):
        if float(logits[i]) >= floor:
            ids[filled] = i
            negated[filled] = -logits[i]
            filled += 1
    return ids[np.argsort(negated, kind="mergesort")]


@inline
def _boundary(
    logits: Floats, peak: np.float32, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[np.float32, int]:
    """The last token that the filters keep, as (logit, token id); (-inf, all) keeps everything."""
    last_logit = np.float32(-np.inf)
    last_id: int = _ALL
    if top_k > 0 or top_p < 1.0:
        order = _most_likely(logits, peak, temperature, top_k, top_p)
        kept = order.shape[0] if top_k == 0 else min(top_k, order.shape[0])
        if top_p < 1.0:
            kept = _nucleus(logits, order, kept, peak, temperature, top_k, top_p)
        last_id = order[kept - 1]
        last_logit = logits[last_id]
    if min_p > 0.0:
        floor = np.float32(float(peak) + temperature * math.log(min_p))
        if floor > last_logit:
            return floor, _ALL
    return last_logit, last_id


@inline
def _nucleus(
    logits: Floats, order: Longs, kept: int, peak: np.float32, temperature: float, top_k: int, top_p: float
) -> int:
    """How many of `order` are needed to hold `top_p` of the mass (of the first `kept`, under a top_k)."""
    total = 0.0
    if top_k > 0:
        for i in range(kept):
            total += math.exp((float(logits[order[i]]) - float(peak)) / temperature)
    else:
        for i in range(logits.shape[0]):
            total += math.exp((float(logits[i]) - float(peak)) / temperature)
    mass = 0.0
    for i in range(kept):
        mass += math.exp((float(logits[order[i]]) - float(peak)) / temperature)
        if mass >= top_p * total:
            return i + 1
    return kept


@inline
def _block(seed: np.uint64, position: int, choice: int, block: int) -> Words:
    """The words of the tokens 4 * block and the three after it."""
    return philox(
        np.uint64(block),
        np.uint64(position),
        np.uint64(choice),
        np.uint64(0),
        seed & np.uint64(0xFFFFFFFF),
        seed >> np.uint64(32),
    )


@inline
def _word_of(token: int, words: Words) -> np.uint64:
    lane = token & 3
    return words[0] if lane == 0 else words[1] if lane == 1 else words[2] if lane == 2 else words[3]


@inline
def _gumbel_max(
    logits: Floats,
    best: int,
    temperature: float,
    boundary: tuple[np.float32, int],
    key: tuple[np.uint64, int, int],
) -> int:
    """Argmax of (logit - top logit) / temperature + noise over the tokens within the boundary.

    `best` has the top logit, which is taken off so that no temperature, however small, overflows.

    The noise of a word is below -log(v), so a token whose word is too large for its distance from the leader
    is passed over without a logarithm, and a block of four whose members are all out of reach without a word.
    """
    seed, position, choice = key
    floor, floor_id = boundary
    peak = float(logits[best])
    leader = best
    lead = gumbel(_word_of(best, _block(seed, position, choice, best >> 2)))
    reach = 23.0  # -log(2^-33), above all noise
    vocabulary = logits.shape[0]
    for block in range((vocabulary + 3) // 4):
        start = block * 4
        stop = min(start + 4, vocabulary)
        alive = False
        for token in range(start, stop):
            alive = alive or (float(logits[token]) - peak) / temperature + reach >= lead
        if not alive:
            continue
        words = _block(seed, position, choice, block)
        for token in range(start, stop):
            logit = logits[token]
            if logit < floor or (logit == floor and token > floor_id):
                continue
            scaled = (float(logit) - peak) / temperature
            word = _word_of(token, words)
            gap = lead - scaled
            if gap >= 0.0 and (gap >= 63.0 or float(word) >= _TAIL[int(gap)]):
                continue
            score = scaled + gumbel(word)
            if score > lead or (score == lead and token < leader):
                lead = score
                leader = token
    return leader


@parallel_kernel
def draw(
    logits: Floats,
    temperature: Doubles,
    top_k: Longs,
    top_p: Doubles,
    min_p: Doubles,
    seed: Seeds,
    position: Longs,
    choice: Longs,
    tokens: Longs,
) -> None:
    """Draw one token for each row of `logits` [rows, vocabulary]; the other arrays are [rows].

    `position` is that of the token drawn, counted from the start of the sequence. `tokens` is written.
    """
    for row in numba.prange(logits.shape[0]):
        line = logits[row]
        best = _argmax(line)
        if temperature[row] > 0.0:
            limits = _boundary(line, line[best], temperature[row], top_k[row], top_p[row], min_p[row])
            best = _gumbel_max(line, best, temperature[row], limits, (seed[row], position[row], choice[row]))
        tokens[row] = best


@parallel_kernel
def rank(logprobs: Floats, tokens: Longs, ranks: Longs) -> None:
    """Rank of `tokens` [rows] in each row of `logprobs`, 1 for the likeliest; ties by lower id first."""
    for row in numba.prange(logprobs.shape[0]):
        token = tokens[row]
        value = logprobs[row, token]
        ahead = 0
        for i in range(logprobs.shape[1]):
            ahead += logprobs[row, i] > value or (logprobs[row, i] == value and i < token)
        ranks[row] = ahead + 1


@parallel_kernel
def top(logprobs: Floats, count: Ints, ids: Ints) -> None:
    """ids[row, :count[row]] = the likeliest token ids of each row, best first, ties by lower id."""
    for row in numba.prange(logprobs.shape[0]):
        line = logprobs[row]
        filled = 0
        for token in range(line.shape[0] if count[row] > 0 else 0):
            if filled == count[row] and line[token] <= line[ids[row, filled - 1]]:
                continue
            at = filled if filled < count[row] else filled - 1
            while at > 0 and line[ids[row, at - 1]] < line[token]:
                ids[row, at] = ids[row, at - 1]
                at -= 1
            ids[row, at] = token
            filled = min(filled + 1, count[row])
