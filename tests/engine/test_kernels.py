"""The compiled kernels against plain definitions of what they compute."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.engine.kernels.attention import attend, blocks_of, no_sinks, store
from transom.engine.kernels.bfloat16 import round_rows
from transom.engine.kernels.cache import PAGE, empty_cache
from transom.engine.kernels.elementary import highest
from transom.engine.kernels.fused import gate, rms_norm, rotate_and_store
from transom.engine.kernels.philox import philox
from transom.engine.kernels.read import DRAW, NOTHING, read_rows

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


def read(logits, tokens, *, shaped=None, counts=None, draws=()):
    """Run the kernel over rows of logits: tokens, logprobs, ranks, and the likeliest tokens of each row."""
    rows = len(logits)
    columns = [*zip(*draws, strict=True)] if draws else [(0,) * rows] * 7
    types = (np.float64, np.int64, np.float64, np.float64, np.uint64, np.int64, np.int64)
    columns = [np.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    counts = np.array([0] * rows if counts is None else counts, np.int64)
    tokens, logprobs, ranks = np.array(tokens, np.int64), np.empty(rows, np.float32), np.empty(rows, np.int64)
    top_ids = np.zeros((rows, counts.max()), np.int32)
    top_logprobs = np.zeros(top_ids.shape, np.float32)
    read_rows(
        logits,
        logits if shaped is None else shaped,
        np.full(rows, shaped is not None),
        tuple(columns[:4]),
        tuple(columns[4:]),
        counts,
        (np.full(rows, NOTHING), np.full(rows, NOTHING)),
        (np.zeros(rows, np.bool_), np.empty(rows, np.int64), np.empty(rows, np.float32)),
        tokens,
        logprobs,
        ranks,
        top_ids,
        top_logprobs,
        np.empty((rows, 3), np.float32),
        np.empty((0, logits.shape[1]), np.float32),
    )
    return tokens, logprobs, ranks, top_ids, top_logprobs


def draw_one(logits, *draw) -> int:
    return int(read(logits[None], [DRAW], draws=[draw])[0][0])


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


@pytest.mark.parametrize("size", [5, 1024, 3001])
def test_drawing_over_many_chunks_equals_drawing_all_noise(size):
    for seed in range(25):
        logits = (np.random.default_rng(seed).standard_normal(size) * 5).astype(np.float32)
        for filters in ((0, 1.0, 0.0), (0, 0.9, 0.0), (40, 0.95, 0.01)):
            arguments = (logits, 0.8, *filters, seed, 3, 1)
            assert draw_one(*arguments) == draw_plainly(*arguments)


def test_a_shaped_row_is_drawn_from_and_the_raw_one_reported():
    logits = np.zeros((1, 50), np.float32)
    shaped = logits.copy()
    shaped[0, 7] = 100.0
    tokens, logprobs, ranks, _, _ = read(logits, [DRAW], shaped=shaped, draws=[(1.0, 0, 1.0, 0.0, 3, 4, 0)])
    assert tokens[0] == 7
    assert logprobs[0] == np.float32(-math.log(50))
    assert ranks[0] == 8


def test_top_and_rank_order_by_logit_and_then_by_token_id():
    logits = np.random.default_rng(1).standard_normal((5, 300)).round(1).astype(np.float32)
    counts = [0, 1, 5, 20, 20]
    orders = [np.lexsort((np.arange(300), -line)) for line in logits]
    known = [int(order[9]) for order in orders]
    tokens, logprobs, ranks, top_ids, top_logprobs = read(logits, known, counts=counts)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), -1).numpy()
    assert tokens.tolist() == known
    assert ranks.tolist() == [10] * 5
    for row, order in enumerate(orders):
        ids = top_ids[row, : counts[row]]
        assert ids.tolist() == order[: counts[row]].tolist()
        assert logprobs[row] == pytest.approx(expected[row, known[row]], abs=1e-6)
        assert top_logprobs[row, : counts[row]] == pytest.approx(expected[row, ids], abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_finite_maximum_is_reported_and_its_neighbours_are_read(bad):
    logits = np.zeros((3, 20), np.float32)
    logits[1] = bad
    _, logprobs, *_ = read(logits, [4, DRAW, 4], draws=[(1.0, 0, 1.0, 0.0, 0, 0, 0)] * 3)
    assert not math.isfinite(logprobs[1])
    assert logprobs[0] == logprobs[2] == np.float32(-math.log(20))


def rounded(numbers):
    """To bfloat16."""
    return round_rows(numbers.reshape(-1, numbers.shape[-1])).reshape(numbers.shape)


def poison(cache, dim):
    """Fill a cache with what nobody may see, but for what fills up the keys of pairs."""
    for part in cache:
        part[:] = {"f": np.nan, "u": 0x7FC07FC0 if part.itemsize == 4 else 0x7FC0}[part.dtype.kind]
    if cache[0].dtype == np.uint32:
        cache[0][:, :, (dim + 1) // 2 :] = 0
        if dim % 2:
            cache[0][:, :, dim // 2] &= 0xFFFF


class Cache:
    """A cache of one layer in which one sequence lies on pages that are out of order."""

    def __init__(self, length: int, kv_heads: int, dim: int, seed: int = 0, *, half: bool = False):
        rng = np.random.default_rng(seed)
        pages = -(-length // PAGE)
        self.cache = empty_cache(pages + 3, kv_heads, dim, dim, half=half)
        poison(self.cache, dim)
        self.table = (1 + rng.permutation(pages))[None].astype(np.int32)
        self.key = rng.standard_normal((length, kv_heads, dim)).astype(np.float32)
        self.value = rng.standard_normal((length, kv_heads, dim)).astype(np.float32)
        self.store()

    def store(self):
        length = len(self.key)
        where = np.zeros(length, np.int32), np.arange(length, dtype=np.int32)
        store(self.key, self.value, self.cache, (self.table, *where))

    def attend(self, query, positions, *, window=0, softcap=0.0, sinks=None):
        out = np.empty_like(query)
        where = np.zeros(len(positions), np.int32), np.array(positions, np.int32)
        attend(
            query,
            self.cache,
            (self.table, *where),
            blocks_of(*where),
            (np.float32(query.shape[2] ** -0.5), window, np.float32(softcap)),
            no_sinks(query.shape[1]) if sinks is None else sinks,
            query.shape[2],
            out,
            2,
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


@pytest.mark.parametrize("half", [False, True], ids=["numbers", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dim", [8, 13, 64, 80])
def test_attention_equals_its_definition(variant, dim, half):
    cache = Cache(90, 2, dim, half=half)
    positions = [0, 1, 15, 16, 17, 40, 41, 42, 43, 44, 45, 46, 47, 63, 89]
    query = np.random.default_rng(2).standard_normal((len(positions), 4, dim)).astype(np.float32)
    if half:
        query, cache.key, cache.value = (rounded(part) for part in (query, cache.key, cache.value))
    found = cache.attend(query, positions, **variant)
    # Weights may be rounded to eight bits.
    tolerance = 4e-3 if half else 2e-6
    assert np.abs(found - cache.attend_plainly(query, positions, **variant)).max() < tolerance


COMPANIES = ([5], [89], [0, 89], [7, 7, 3], range(40, 61), range(41, 60), range(89, -1, -2))


@pytest.mark.parametrize("half", [False, True], ids=["numbers", "bfloat16"])
@pytest.mark.parametrize("heads", [(4, 2), (40, 2)], ids=["few heads", "more than a register's lines"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_attends_alike_in_every_company(variant, heads, half):
    if "sinks" in variant:
        variant = {"sinks": np.resize(variant["sinks"], heads[0])}
    cache = Cache(90, heads[1], 16, half=half)
    query = np.random.default_rng(3).standard_normal((90, heads[0], 16)).astype(np.float32)
    whole = cache.attend(query, range(90), **variant)
    for rows in COMPANIES:
        some = cache.attend(query[list(rows)], rows, **variant)
        assert np.array_equal(some, whole[list(rows)])


@pytest.mark.parametrize("half", [False, True], ids=["numbers", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_a_row_may_not_see_may_be_anything(bad, half):
    """Not even a value that is no finite number, of a row that is computed beside it."""
    query = np.random.default_rng(3).standard_normal((90, 4, 16)).astype(np.float32)
    good, spoilt = (Cache(90, 2, 16, half=half) for _ in range(2))
    spoilt.value[45] = bad
    spoilt.store()
    found = spoilt.attend(query, range(90))
    assert np.array_equal(found[:45], good.attend(query, range(90))[:45])
    assert not np.isfinite(found[45:]).any()
    windowed = [cache.attend(query, range(90), window=20) for cache in (good, spoilt)]
    assert np.array_equal(windowed[0][65:], windowed[1][65:])


def test_the_norm_equals_its_definition():
    rows = np.random.default_rng(4).standard_normal((5, 77)).astype(np.float32)
    weight = np.random.default_rng(5).standard_normal(77).astype(np.float32)
    out = np.empty_like(rows)
    rms_norm(rows, weight, np.float32(1e-5), out)
    expected = torch.nn.functional.rms_norm(
        *map(torch.from_numpy, (rows,)), (77,), torch.from_numpy(weight), 1e-5
    )
    assert np.abs(out - expected.numpy()).max() < 1e-6


def gated(rows, gelu):
    out = np.empty((rows.shape[0], rows.shape[1] // 2), np.float32)
    gate(rows, gelu, out)
    return out


@pytest.mark.parametrize("gelu", [False, True])
def test_the_gate_equals_its_definition_at_every_size(gelu):
    rows = (np.random.default_rng(6).standard_normal((9, 2 * 33)) * 30).astype(np.float32)
    left, right = (part.double() for part in torch.from_numpy(rows).split(33, dim=1))
    act = torch.nn.functional.gelu(left, approximate="tanh") if gelu else torch.nn.functional.silu(left)
    assert np.abs(gated(rows, gelu) - (act * right).numpy()).max() < 1e-3  # of numbers up to a thousand


@pytest.mark.parametrize("gelu", [False, True])
def test_a_row_is_gated_alike_in_one_thread_and_in_many(gelu):
    rows = np.random.default_rng(7).standard_normal((700, 2 * 333)).astype(np.float32)
    whole = gated(rows, gelu)
    assert np.array_equal(np.concatenate([gated(rows[i : i + 1], gelu) for i in range(700)]), whole)


@pytest.mark.parametrize("normed", [False, True])
def test_a_row_is_rotated_alike_in_one_thread_and_in_many_and_as_defined(normed):
    heads, kv_heads, dim, rotated, count = 4, 2, 16, 12, 900
    rng = np.random.default_rng(8)
    qkv = rng.standard_normal((count, (heads + 2 * kv_heads) * dim)).astype(np.float32)
    cos, sin = rng.standard_normal((2, count, rotated)).astype(np.float32)
    weight = rng.standard_normal(dim if normed else 0).astype(np.float32)

    def rotate(rows):
        pages = -(-count // PAGE)
        keys, values = empty_cache(pages, kv_heads, dim, dim)
        query = np.empty((len(rows), heads, dim), np.float32)
        table = np.arange(pages, dtype=np.int32)[None]
        places = table, np.zeros(len(rows), np.int32), rows.astype(np.int32)
        norms = weight, weight, np.float32(1e-6)
        rotate_and_store(qkv[rows], (cos[rows], sin[rows]), norms, places, (keys, values), dim, query)
        return query, keys, values

    whole = rotate(np.arange(count))
    for row in (0, 1, 17, 899):
        query, keys, values = rotate(np.array([row]))
        assert np.array_equal(query[0], whole[0][row])
        assert np.array_equal(keys[row // PAGE, :, :, row % PAGE], whole[1][row // PAGE, :, :, row % PAGE])
        assert np.array_equal(values[row // PAGE, :, row % PAGE], whole[2][row // PAGE, :, row % PAGE])
        plain = torch.from_numpy(qkv[row].reshape(-1, dim)).double()
        if normed:
            normal = torch.nn.functional.rms_norm(plain, (dim,), torch.from_numpy(weight).double(), 1e-6)
            plain[: heads + kv_heads] = normal[: heads + kv_heads]
        first, second = plain[:, : rotated // 2], plain[:, rotated // 2 : rotated]
        turned = plain.clone()
        c, s = torch.from_numpy(cos[row]).double(), torch.from_numpy(sin[row]).double()
        turned[:, :rotated] = plain[:, :rotated] * c + torch.cat([-second, first], 1) * s
        assert np.abs(query[0] - turned[:heads].numpy()).max() < 1e-5
        assert (
            np.abs(keys[row // PAGE, :, :, row % PAGE] - turned[heads : heads + kv_heads].numpy()).max()
            < 1e-5
        )
        assert np.array_equal(
            values[row // PAGE, :, row % PAGE], qkv[row].reshape(-1, dim)[heads + kv_heads :]
        )


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=40))
def test_the_highest_is_the_highest(numbers):
    expected = max(numbers, default=-math.inf)
    assert highest(np.array(numbers, np.float32)) == expected
