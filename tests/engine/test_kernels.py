"""The compiled kernels against plain definitions of what they compute."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.engine.kernels.attention import PAGE, attend, no_sinks, store
from transom.engine.kernels.draw import draw, rank, top
from transom.engine.kernels.philox import philox

# Known answers of Random123 (kat_vectors, philox4x32 10).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(counter, key):
    return tuple(int(word) for word in philox(*map(np.uint64, (*counter, *key))))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert words(counter, key) == answer


def noise(seed: int, position: int, choice: int, token: int) -> float:
    """The noise of a token, straight from its definition."""
    word = words((token // 4, position, choice, 0), (seed % 2**32, seed >> 32))[token % 4]
    return -math.log(-math.log1p(-(word + 0.5) * 2.0**-32))


@np.errstate(over="ignore")
def draw_plainly(logits, temperature, top_k, top_p, min_p, seed, position, choice) -> int:
    """The token that the definition names: sort, filter, add noise to each survivor, take the best."""
    values = logits.astype(np.float64)
    order = np.lexsort((np.arange(len(values)), -values))
    if temperature == 0:
        return int(order[0])
    mass = np.exp((values - values.max()) / temperature)
    kept = order[:top_k] if top_k else order
    if top_p < 1:
        running = np.cumsum(mass[kept])
        kept = kept[: int(np.searchsorted(running, top_p * running[-1])) + 1]
    if min_p:
        kept = kept[values[kept] >= np.float32(values.max() + temperature * math.log(min_p))]
    scores = {
        int(t): (values[t] - values.max()) / temperature + noise(seed, position, choice, int(t)) for t in kept
    }
    best = max(scores.values())
    return min(token for token, score in scores.items() if score == best)


def draw_one(logits, temperature, top_k, top_p, min_p, seed, position, choice) -> int:
    token = np.zeros(1, np.int64)
    draw(
        logits[None],
        np.array([temperature]),
        np.array([top_k]),
        np.array([top_p]),
        np.array([min_p]),
        np.array([seed], np.uint64),
        np.array([position]),
        np.array([choice]),
        token,
    )
    return int(token[0])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 5e-324, 1e-300, 0.3, 1.0, 4.0]),
    st.sampled_from([0, 1, 7, 1000]),
    st.sampled_from([1.0, 0.9, 0.3, 1e-9]),
    st.sampled_from([0.0, 0.02, 1.0]),
    st.sampled_from([0.1, 1.0, 8.0]),
)
def test_lazy_drawing_equals_drawing_all_noise(seed, temperature, top_k, top_p, min_p, spread):
    # Rounded, so that ties are many and their rule is tried.
    logits = (np.random.default_rng(seed).standard_normal(203) * spread).round(1).astype(np.float32)
    arguments = (logits, temperature, top_k, top_p, min_p, seed * 977, seed % 5000, seed % 3)
    assert draw_one(*arguments) == draw_plainly(*arguments)


def test_draws_follow_the_distribution():
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    counts = np.bincount([draw_one(logits, 1.0, 0, 1.0, 0.0, s, 3, 0) for s in range(4000)], minlength=4)
    # Pearson's chi-squared, 3 degrees of freedom: beyond 16.3 once in a thousand.
    expected = 4000 * np.exp(logits.astype(np.float64))
    assert float(((counts - expected) ** 2 / expected).sum()) < 16.3


def test_seed_position_and_choice_each_change_the_noise():
    draws = {
        name: [draw_one(np.zeros(97, np.float32), 1.0, 0, 1.0, 0.0, *key(i)) for i in range(40)]
        for name, key in {
            "seed": lambda i: (i, 0, 0),
            "high half of the seed": lambda i: (i << 32, 0, 0),
            "position": lambda i: (0, i, 0),
            "choice": lambda i: (0, 0, i),
        }.items()
    }
    assert all(len(set(drawn)) > 20 for drawn in draws.values())
    assert len({tuple(drawn) for drawn in draws.values()}) == 4


def test_top_and_rank_order_by_logprob_and_then_by_token_id():
    logprobs = np.random.default_rng(1).standard_normal((5, 300)).round(1).astype(np.float32)
    counts = np.array([0, 1, 5, 20, 20], np.int32)
    ids = np.zeros((5, 20), np.int32)
    top(logprobs, counts, ids)
    ranks = np.zeros(5, np.int64)
    for row in range(5):
        order = np.lexsort((np.arange(300), -logprobs[row]))
        assert ids[row, : counts[row]].tolist() == order[: counts[row]].tolist()
        rank(logprobs, order[[9] * 5].astype(np.int64), ranks)
        assert ranks[row] == 10


class Cache:
    """A cache of one layer in which one sequence lies on pages that are out of order."""

    def __init__(self, length: int, kv_heads: int, dim: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        pages = -(-length // PAGE)
        self.keys = np.full((pages + 3, kv_heads, dim, PAGE), 7e3, np.float32)
        self.values = np.full((pages + 3, kv_heads, PAGE, dim), -9e3, np.float32)
        self.table = (1 + rng.permutation(pages))[None].astype(np.int32)
        self.key = rng.standard_normal((length, kv_heads, dim)).astype(np.float32)
        self.value = rng.standard_normal((length, kv_heads, dim)).astype(np.float32)
        where = np.zeros(length, np.int32), np.arange(length, dtype=np.int32)
        store(self.key, self.value, self.table, *where, self.keys, self.values)

    def attend(self, query, positions, *, window=0, softcap=0.0, sinks=None):
        out = np.empty_like(query)
        attend(
            query,
            self.keys,
            self.values,
            self.table,
            np.zeros(len(positions), np.int32),
            np.array(positions, np.int32),
            np.float32(query.shape[2] ** -0.5),
            window,
            np.float32(softcap),
            no_sinks(query.shape[1]) if sinks is None else sinks,
            out,
        )
        return out

    def attend_plainly(self, query, positions, *, window=0, softcap=0.0, sinks=None):
        """float64, one row and head at a time."""
        out = np.empty(query.shape)
        group = query.shape[1] // self.key.shape[1]
        for row, position in enumerate(positions):
            seen = slice(max(0, position - window + 1) if window else 0, position + 1)
            for head in range(query.shape[1]):
                keys = self.key[seen, head // group].astype(np.float64)
                scores = keys @ query[row, head].astype(np.float64) * query.shape[2] ** -0.5
                if softcap:
                    scores = softcap * np.tanh(scores / softcap)
                sink = [] if sinks is None else [sinks[head]]
                weights = torch.softmax(torch.tensor([*scores, *sink], dtype=torch.float64), 0).numpy()
                out[row, head] = weights[: len(scores)] @ self.value[seen, head // group].astype(np.float64)
        return out


VARIANTS = [
    pytest.param({}, id="plain"),
    pytest.param({"window": 5}, id="small window"),
    pytest.param({"window": 33}, id="window across pages"),
    pytest.param({"softcap": 2.0}, id="softcap"),
    pytest.param({"sinks": np.array([0.5, -1.0, 3.0, 0.0], np.float32)}, id="sinks"),
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dim", [8, 13, 64])
def test_attention_equals_its_definition(variant, dim):
    cache = Cache(90, 2, dim)
    positions = [0, 1, 15, 16, 17, 47, 63, 89]
    query = np.random.default_rng(2).standard_normal((len(positions), 4, dim)).astype(np.float32)
    found = cache.attend(query, positions, **variant)
    assert np.abs(found - cache.attend_plainly(query, positions, **variant)).max() < 2e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_attends_alike_in_every_company(variant):
    cache = Cache(90, 2, 16)
    query = np.random.default_rng(3).standard_normal((90, 4, 16)).astype(np.float32)
    whole = cache.attend(query, range(90), **variant)
    for rows in ([5], [89], [0, 89], [7, 7, 3], range(40, 61), range(89, -1, -2)):
        some = cache.attend(query[list(rows)], rows, **variant)
        assert np.array_equal(some, whole[list(rows)])
