"""Measures and whole distributions: against their definitions, and alike in every company."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.drive import PlainModel, ask, load_tiny, run
from transom.engine import sampler
from transom.engine.sampler import Read
from transom.engine.sequence import Sequence
from transom.schema.generation import SamplingParams, SequenceRequest
from transom.schema.measures import Measures

VOCAB = 203
ALL = Measures(entropy=True, rank=True, surprisal=True, kl=True, top_k_mass=5)


def sequence(**sampling) -> Sequence:
    params = SamplingParams(**{"seed": 3, "max_tokens": 4} | sampling)
    return Sequence(SequenceRequest(sequence_id="", prompt_token_ids=(1, 2, 3), sampling=params))


def read(logits, *reads):
    return sampler.read(lambda rows: rows, torch.from_numpy(np.stack(logits)), list(reads))


def draw(logits, **sampling):
    return read([logits], Read(sequence(**{"measures": ALL} | sampling)))[0]


def row(seed: int, spread: float = 2.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(VOCAB) * spread).round(1).astype(np.float32)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    values = logits.astype(np.float64) / temperature
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def kl(left: np.ndarray, right: np.ndarray) -> float:
    some = left > 0
    return float((left[some] * np.log(left[some] / right[some])).sum())


@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0, 30.0])
@pytest.mark.parametrize("k", [1, 2, 5, 100, VOCAB - 1, VOCAB, 10**6])
def test_entropy_and_mass_are_what_their_definitions_say(spread, k):
    logits = row(1, spread)
    chances = softmax(logits)
    found = draw(logits, measures=Measures(entropy=True, top_k_mass=k)).measured
    assert found.entropy == pytest.approx(-(chances * np.log(chances)).sum(), rel=1e-5, abs=1e-6)
    assert found.top_k_mass == pytest.approx(min(1.0, np.sort(chances)[::-1][:k].sum()), rel=1e-6)
    assert found.kl is None


@pytest.mark.parametrize("masked", [-np.inf, -3.4e38])
def test_tokens_that_are_impossible_disturb_no_measure(masked):
    logits = row(2)
    logits[::3] = masked
    possible = logits[logits > -1e30]
    chances = softmax(possible)
    bias = {"temperature": 0.7, "logit_bias": ((0, 5.0), (1, 3.0))}
    found = draw(logits, distributions=(0,), **bias)
    assert found.measured.entropy == pytest.approx(-(chances * np.log(chances)).sum(), rel=1e-5)
    shaped = logits.copy()
    shaped[1] += 3
    expected = kl(softmax(shaped[logits > -1e30], 0.7), chances)
    assert found.measured.kl == pytest.approx(expected, rel=1e-5)
    whole = np.frombuffer(found.distribution, "<f4")
    assert (whole[::3] < -1e30).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.3, 1.0, 4.0]),
    st.sampled_from([0, 1, 7]),
    st.sampled_from([1.0, 0.6]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([(), ((3, 4.0), (17, -100.0))]),
)
def test_kl_is_that_of_what_is_drawn_from_what_the_model_says(seed, temperature, top_k, top_p, min_p, bias):
    logits = row(seed)
    shaped = logits.copy()
    for token, more in bias:
        shaped[token] += more
    order = np.lexsort((np.arange(VOCAB), -shaped))
    weights = softmax(shaped, temperature)
    kept = order[:top_k] if top_k else order
    if top_p < 1:
        running = np.cumsum(weights[kept])
        kept = kept[: int(np.searchsorted(running, top_p * running[-1])) + 1]
    kept = kept[shaped[kept] >= shaped.max() + temperature * math.log(min_p)] if min_p else kept
    drawn = np.zeros(VOCAB)
    drawn[kept] = weights[kept] / weights[kept].sum()
    filters = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    found = draw(logits, logit_bias=bias, **filters).measured.kl
    assert found == pytest.approx(kl(drawn, softmax(logits)), rel=1e-4, abs=1e-6)


def test_kl_is_nothing_where_nothing_is_shaped_and_the_surprisal_where_it_is_greedy():
    for seed in range(20):
        assert draw(row(seed)).measured.kl == 0.0
        greedy = draw(row(seed), temperature=0.0)
        assert greedy.measured.kl == -greedy.logprob


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-37])
def test_a_temperature_near_0_is_measured_like_a_choice_among_the_likeliest(temperature):
    logits = row(4)
    found = draw(logits, temperature=temperature)
    ties = int((logits == logits.max()).sum())
    assert found.measured.kl == pytest.approx(-found.logprob - math.log(ties), rel=1e-5)


def test_a_distribution_holds_the_very_numbers_that_are_told_one_by_one():
    found = draw(row(5), logprobs=20, distributions=(0,))
    whole = np.frombuffer(found.distribution, "<f4")
    assert len(whole) == VOCAB
    assert float(whole[found.token_id]) == found.logprob
    assert [float(whole[token]) for token, _ in found.top] == [logprob for _, logprob in found.top]
    assert np.exp(whole.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_values_come_in_the_order_of_their_names():
    found = draw(row(6))
    assert ALL.names == ("entropy", "rank", "surprisal", "kl", "top_k_mass")
    measured = found.measured
    expected = [measured.entropy, found.rank, -found.logprob, measured.kl, measured.top_k_mass]
    assert found.values(ALL) == expected
    assert found.values(Measures(kl=True)) == [measured.kl]


def test_rows_that_want_nothing_are_told_nothing_beside_rows_that_do():
    asked = sequence(measures=ALL, distributions=(0,), prompt_distributions=(2,))
    reads = [Read(sequence()), Read(asked), Read(sequence(), 7, 1), Read(asked, 7, 2), Read(asked, 7, 1)]
    found = read([row(i) for i in range(5)], *reads)
    assert [token.measured is not None for token in found] == [False, True, False, False, False]
    assert [token.distribution is not None for token in found] == [False, True, False, True, False]
    alone = [read([row(i)], each)[0] for i, each in enumerate(reads)]
    assert found == alone


def test_measures_and_distributions_of_a_model_are_those_of_the_plain_one(tiny_root):
    root = tiny_root("llama")
    engine, plain = load_tiny(root).engine, PlainModel(root)
    prompt = [(7 * i) % 384 for i in range(40)]
    prompted = replace(ALL, kl=False)
    asked = ask(
        "a",
        prompt,
        max_tokens=3,
        measures=ALL,
        prompt_measures=prompted,
        distributions=(1, 2),
        prompt_distributions=(1, 39),
    )
    result = run(engine, [asked])["a"]
    rows = plain.logprobs(prompt + result.ids).double().numpy()
    tokens = [*result.prompt, *result.tokens]
    assert tokens[0] is None
    for position, token in enumerate(tokens[1:], 1):
        line = rows[position - 1]
        assert token.measured.entropy == pytest.approx(-(np.exp(line) * line).sum(), abs=1e-4)
        assert token.measured.top_k_mass == pytest.approx(np.exp(np.sort(line)[-5:]).sum(), abs=1e-4)
        if token.distribution is not None:
            assert np.abs(np.frombuffer(token.distribution, "<f4") - line).max() < 1e-3
    told = [position for position, token in enumerate(tokens) if token and token.distribution]
    assert told == [1, 39, 41, 42]


def test_measures_of_a_prompt_are_found_after_its_pages_were_shared_and_scored(tiny_root):
    """Scores on shared pages have no measures: who wants them computes the prompt, to the same bits."""
    engine = load_tiny(tiny_root("llama")).engine
    prompt = [(11 * i) % 384 for i in range(70)]
    measured = {"prompt_measures": Measures(entropy=True), "prompt_logprobs": 2, "prompt_distributions": (9,)}
    asked = ask("a", prompt, max_tokens=2, project="p", **measured)
    expected = run(load_tiny(tiny_root("llama"), prefix_caching=False).engine, [asked])["a"]
    plain = [ask(str(i), prompt, max_tokens=2, project="p", prompt_logprobs=i) for i in range(3)]
    run(engine, plain[:2])
    results = run(engine, [asked, *plain, replace(asked, sequence_id="b")])
    assert results["a"] == results["b"] == expected
    assert all(token.measured is None for name in "012" for token in results[name].prompt[1:])
