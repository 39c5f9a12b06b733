"""Drawing a token: filters, then the Gumbel-max trick with noise only where it can decide.

Everything here is a function of one row of logits, its parameters, its seed and its position.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from transom.engine.kernels.arrays import Floats, Ints, Longs
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.elementary import exp_in_place, highest
from transom.engine.kernels.philox import Block, any_below, gumbel, philox, philox_words
from transom.engine.kernels.softmax import weigh_all
from transom.engine.kernels.tile import LANES

Bits = NDArray[np.uint32]

CHUNK = 1024
"""Tokens looked at together."""

_GROUP = 64
"""Tokens of a chunk that are passed over together."""

_ALL = 2**62
_MAX_SLOPE = np.float32(1e30)
_MARGIN = 1.001
"""Covers the rounding of weights and words, so that no token is passed over that could win."""


@kernel
def argmax(logits: Floats) -> int:
    """Lowest token id among those with the highest logit; -1 if none is a number."""
    leader, lead = 0, np.float32(-np.inf)
    for start in range(0, logits.shape[0], CHUNK):
        peak = highest(logits[start : start + CHUNK])
        if peak > lead:
            leader, lead = start, peak
    for i in range(leader, logits.shape[0]):
        if logits[i] == lead:
            return i
    return -1


@kernel
def weigh(logits: Floats, peak: np.float32, temperature: float, weights: Floats) -> float:
    """weights[i] = exp((logits[i] - peak) / temperature), never quite 0; returns their sum."""
    # A temperature below 1e-30 leaves the same token as one of 1e-30.
    slope = min(np.float32(1.0 / max(temperature, 1e-37)), _MAX_SLOPE)
    total: float = 0.0
    count = logits.shape[0]
    whole = count - count % LANES
    for start in range(0, whole, CHUNK):
        vectors = min(CHUNK, whole - start) // LANES
        total += float(weigh_all((logits, start, 1), (weights, start, 1), vectors, peak, slope))
    rest = weights[whole:]
    for i in range(rest.shape[0]):
        rest[i] = (logits[whole + i] - peak) * slope
    exp_in_place(rest, np.float32(0.0), np.empty(LANES, np.int32))
    for weight in rest:
        total += float(weight)
    return total


@kernel
def _most_likely(
    logits: Floats, peak: np.float32, temperature: float, weights: Floats, top_k: int, mass: float
) -> Longs:
    """Token ids by falling logit, then rising id: at least `top_k` of them and at least `mass` of the weight.

    Widens a band below the peak until it holds enough, so that only a few tokens are ever sorted.
    """
    band = 4.0
    while True:
        ids = _at_least(logits, np.float32(float(peak) - band * temperature))
        held = 0.0
        for i in range(ids.shape[0]):
            held += float(weights[ids[i]])
        if ids.shape[0] == logits.shape[0] or (ids.shape[0] >= top_k and held >= mass * (1 + 1e-9)):
            break
        band = band * 2 if band < 1e6 else np.inf
    negated = np.empty(ids.shape[0], np.float32)
    for i in range(ids.shape[0]):
        negated[i] = -logits[ids[i]]
    return ids[np.argsort(negated, kind="mergesort")]


@kernel
def _at_least(logits: Floats, floor: np.float32) -> Longs:
    """Ids of the tokens whose logit is `floor` or more."""
    count = np.int32(0)
    for i in range(logits.shape[0]):
        count += np.int32(logits[i] >= floor)
    ids = np.empty(count, np.int64)
    filled = 0
    for start in range(0, logits.shape[0], _GROUP):
        part = logits[start : start + _GROUP]
        here = np.int32(0)
        for i in range(part.shape[0]):
            here += np.int32(part[i] >= floor)
        if here > 0:
            for i in range(part.shape[0]):
                if part[i] >= floor:
                    ids[filled] = start + i
                    filled += 1
    return ids


@kernel
def boundary(
    logits: Floats,
    best: int,
    temperature: float,
    weights: Floats,
    total: float,
    filters: tuple[int, float, float],
) -> tuple[np.float32, int]:
    """The last token that the filters (top_k, top_p, min_p) keep, as (logit, token id).

    (-inf, all) keeps everything.
    """
    top_k, top_p, min_p = filters
    peak = logits[best]
    last_logit = np.float32(-np.inf)
    last_id: int = _ALL
    if top_k > 0 or top_p < 1.0:
        mass = top_p * total if top_p < 1.0 else 0.0
        order = _most_likely(logits, peak, temperature, weights, top_k, 0.0 if top_k > 0 else mass)
        kept = order.shape[0] if top_k == 0 else min(top_k, order.shape[0])
        if top_p < 1.0:
            kept = _nucleus(weights, order[:kept], top_p, 0.0 if top_k > 0 else total)
        last_id = order[kept - 1]
        last_logit = logits[last_id]
    if min_p > 0.0:
        floor = np.float32(float(peak) + temperature * math.log(min_p))
        if floor > last_logit:
            return floor, _ALL
    return last_logit, last_id


@kernel
def _nucleus(weights: Floats, order: Longs, top_p: float, total: float) -> int:
    """How many of `order` hold `top_p` of the mass: `total`, or where that is 0 what `order` holds."""
    if total == 0.0:
        for i in range(order.shape[0]):
            total += float(weights[order[i]])
    mass = 0.0
    for i in range(order.shape[0]):
        mass += float(weights[order[i]])
        if mass >= top_p * total:
            return i + 1
    return len(order)


@kernel
def _word_of(token: int, words: Block) -> np.uint64:
    lane = token & 3
    return words[0] if lane == 0 else words[1] if lane == 1 else words[2] if lane == 2 else words[3]


@kernel
def _could_win(weights: Floats, first: int, words: Bits, low: int, high: int, reach: np.float32) -> bool:
    """Whether one of words[low:high] could win, the words being those of the weights from `first` on."""
    whole = high - (high - low) % LANES
    if any_below((words, low, 1), (weights, first + low, 1), (whole - low) // LANES, reach):
        return True
    found = False
    for i in range(whole, high):
        found |= np.float32(words[i]) < weights[first + i] * reach
    return found


@kernel
def is_within(logits: Floats, token: int, limit: tuple[np.float32, int]) -> bool:
    """Whether the filters keep a token."""
    floor, floor_id = limit
    logit = logits[token]
    return logit > floor or (logit == floor and token <= floor_id)


@kernel
def noise(token: int, key: tuple[np.uint64, int, int]) -> float:
    """The Gumbel noise of a token, by seed, position and choice."""
    seed, position, choice = key
    counter = np.uint64(token >> 2), np.uint64(position), np.uint64(choice)
    halves = seed & np.uint64(0xFFFFFFFF), seed >> np.uint64(32)
    words = philox(counter[0], counter[1], counter[2], np.uint64(0), halves[0], halves[1])
    return gumbel(_word_of(token, words))


@kernel
def margin(
    logits: Floats,
    best: int,
    temperature: float,
    limit: tuple[np.float32, int],
    key: tuple[np.uint64, int, int],
    drawn: int,
    known: int,
) -> float:
    """How far `known` was from being drawn, in logits; see `Verdict`.

    Each score is computed as `gumbel_max` does, so that none is above the one that has won.
    """
    if known == drawn:
        return 0.0
    if not is_within(logits, known, limit):
        return math.inf
    peak = float(logits[best])
    highest_score = (float(logits[drawn]) - peak) / temperature + noise(drawn, key)
    return temperature * (highest_score - ((float(logits[known]) - peak) / temperature + noise(known, key)))


@kernel
def _favourite(
    logits: Floats,
    best: int,
    temperature: float,
    limit: tuple[np.float32, int],
    key: tuple[np.uint64, int, int],
    known: int,
) -> tuple[int, float]:
    """Whichever of two tokens comes before the other, and its score; -1 for `known` is none."""
    lead = noise(best, key)
    if known < 0 or not is_within(logits, known, limit):
        return best, lead
    score = (float(logits[known]) - float(logits[best])) / temperature + noise(known, key)
    return (known, score) if score > lead or (score == lead and known < best) else (best, lead)


@kernel
def gumbel_max(
    logits: Floats,
    best: int,
    temperature: float,
    weights: Floats,
    limit: tuple[np.float32, int],
    key: tuple[np.uint64, int, int],
    known: int,
) -> int:
    """Argmax of (logit - top logit) / temperature + noise over the tokens within the limit.

    `best` has the top logit, which is taken off so that no temperature, however small, overflows. `known` is
    a token that is likely to win, or -1. It changes nothing but how many words are drawn: what others have to
    beat is high from the beginning.

    The noise of a word x is -log(E) with E = -log(1 - v) > v = (x + 1/2) / 2^32, so a token of weight w beats
    a score of `lead` only if v < w exp(-lead). Words are drawn many at a time and compared with that; only
    the few that pass cost a logarithm.
    """
    seed, position, choice = key
    floor, floor_id = limit
    peak = float(logits[best])
    counter = np.uint64(position), np.uint64(choice)
    halves = seed & np.uint64(0xFFFFFFFF), seed >> np.uint64(32)
    leader, lead = _favourite(logits, best, temperature, limit, key, known)
    reach = np.float32(math.exp(-lead) * 2.0**32 * _MARGIN)
    words = np.empty(CHUNK, np.uint32)
    vocabulary = logits.shape[0]
    for start in range(0, vocabulary, CHUNK):
        stop = min(start + CHUNK, vocabulary)
        if highest(weights[start:stop]) * reach < np.float32(
            0.4
        ):  # below the smallest word, which stands for 1/2
            continue
        philox_words(start >> 2, counter, halves, words)
        for low in range(start, stop, _GROUP):
            high = min(low + _GROUP, stop)
            if not _could_win(weights, start, words, low - start, high - start, reach):
                continue
            for token in range(low, high):
                logit = logits[token]
                if np.float32(words[token - start]) >= weights[token] * reach:
                    continue
                if logit < floor or (logit == floor and token > floor_id):
                    continue
                score = (float(logit) - peak) / temperature + gumbel(np.uint64(words[token - start]))
                if score > lead or (score == lead and token < leader):
                    lead = score
                    leader = token
                    reach = np.float32(math.exp(-lead) * 2.0**32 * _MARGIN)
    return leader


@kernel
def rank(logits: Floats, token: int) -> int:
    """1 for the likeliest token; ties by lower id first."""
    value = logits[token]
    ahead = 1
    for i in range(logits.shape[0]):
        ahead += logits[i] > value
    for i in range(token):
        ahead += logits[i] == value
    return ahead


@kernel
def top(logits: Floats, ids: Ints) -> None:
    """Ids = the likeliest token ids, best first, ties by lower id."""
    filled = 0
    for start in range(0, logits.shape[0] if ids.shape[0] > 0 else 0, _GROUP):
        part = logits[start : start + _GROUP]
        if filled == ids.shape[0] and highest(part) <= logits[ids[filled - 1]]:
            continue
        for token in range(start, start + part.shape[0]):
            filled = _place(logits, token, ids, filled)


@kernel
def _place(logits: Floats, token: int, ids: Ints, filled: int) -> int:
    """Put a token behind those of the `filled` first ids that are likelier; how many there are then."""
    if filled == ids.shape[0] and logits[token] <= logits[ids[filled - 1]]:
        return filled
    at = filled if filled < ids.shape[0] else filled - 1
    while at > 0 and logits[ids[at - 1]] < logits[token]:
        ids[at] = ids[at - 1]
        at -= 1
    ids[at] = token
    return int(min(filled + 1, ids.shape[0]))
