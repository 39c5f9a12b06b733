"""The engine's contract: an answer is a function of deployment, request and seed, to the bit.

Random batch mates, chunkings, arrival orders, prefix hits, aborts, preemptions and broken steps, on every
family of models; every answer must equal the one that the same request gets alone.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.drive import Result, ask, collect, load_tiny, run
from tests.tiny import FAMILIES
from transom.engine.core import Engine
from transom.engine.kernels.cache import PAGE
from transom.schema.generation import SequenceRequest
from transom.schema.measures import Measures

VOCAB = 384

requests = st.builds(
    lambda prompt, extra: ask("", prompt, **extra),
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=60),
    st.fixed_dictionaries(
        {
            "seed": st.integers(-(2**63), 2**63 - 1),
            "max_tokens": st.integers(0, 12),
            "temperature": st.sampled_from([0.0, 0.7, 1.0]),
        },
        optional={
            "choice": st.integers(0, 5),
            "project": st.sampled_from(["a", "b"]),
            "top_k": st.sampled_from([0, 5, 40]),
            "top_p": st.sampled_from([0.5, 0.95]),
            "min_p": st.just(0.05),
            "frequency_penalty": st.sampled_from([-1.0, 1.5]),
            "presence_penalty": st.just(0.7),
            "logit_bias": st.just(((3, 4.0), (17, -100.0))),
            "logprobs": st.integers(0, 20),
            "prompt_logprobs": st.integers(0, 3),
            "measures": st.builds(
                Measures,
                entropy=st.booleans(),
                kl=st.booleans(),
                top_k_mass=st.sampled_from([0, 1, 9, VOCAB]),
            ),
            "prompt_measures": st.just(Measures(entropy=True, top_k_mass=5)),
            "distributions": st.sampled_from([(0,), (0, 1, 7), (11,)]),
            "prompt_distributions": st.sampled_from([(1,), (2, 3, 17)]),
            "stop_token_ids": st.just(tuple(range(0, VOCAB, 9))),
        },
    ),
)


def _gather(items: list[tuple[int, bool, SequenceRequest]]) -> list[SequenceRequest]:
    """Requests by name; some begin with the same words as others, in the same project."""
    shared = tuple((i * 31) % VOCAB for i in range(70))
    return [
        replace(
            request,
            sequence_id=str(index),
            prompt_token_ids=shared[:length] + request.prompt_token_ids,
            priority="batch" if patient else "interactive",
        )
        for index, (length, patient, request) in enumerate(items)
    ]


batches = st.lists(
    st.tuples(st.sampled_from([0, 0, 16, 33, 64, 70]), st.booleans(), requests), min_size=1, max_size=20
).map(_gather)


SCHEDULES = {
    "chunks of 512": {"max_num_batched_tokens": 512},
    "chunks of 16": {"max_num_batched_tokens": 16},
    "no prefix cache": {"max_num_batched_tokens": 16, "prefix_caching": False},
    "chunks of 7, three at once": {"max_num_batched_tokens": 7, "max_num_seqs": 3},
    "a cache that overflows": {"max_num_batched_tokens": 64, "pages": 14},
}


def load(root: Path, *, pages: int = 0, **options) -> Engine:
    """An engine; with `pages`, over a cache of so many, which hold the longest sequence and little more."""
    if pages:
        attention = load_tiny(root).engine._runner._attention
        options["cache_bytes"] = pages * attention.bytes_per_token(torch.float32) * PAGE
    return load_tiny(root, **options).engine


@pytest.fixture(scope="module", params=FAMILIES)
def engines(request, tiny_root):
    """One model under schedules that share nothing."""
    root = tiny_root(request.param)
    return load(root), [load(root, **options) for options in SCHEDULES.values()]


@settings(max_examples=4, deadline=None)
@given(batches)
def test_every_answer_equals_the_one_given_alone(engines, batch):
    alone, crowded = engines
    expected = {r.sequence_id: run(alone, [r])[r.sequence_id] for r in batch}
    for engine in crowded:
        assert run(engine, batch) == expected


@settings(max_examples=4, deadline=None)
@given(batches, st.integers(0, 2**32))
def test_arrivals_and_aborts_in_mid_flight_change_nothing(engines, batch, seed):
    alone, crowded = engines
    for engine in crowded:
        chance = random.Random(seed)
        doomed = {r.sequence_id for r in batch if chance.random() < 0.3}
        waiting, results = list(batch), {r.sequence_id: Result() for r in batch}
        while waiting or not engine.idle:
            for _ in range(chance.randint(0, 3)):
                if waiting:
                    engine.submit(waiting.pop())
            if chance.random() < 0.2:
                for name in doomed:
                    engine.abort(name)
            for output in engine.step():
                results[output.sequence_id].add(output)
        for request in batch:
            if request.sequence_id not in doomed:
                assert results[request.sequence_id] == run(alone, [request])[request.sequence_id]


@pytest.fixture(scope="module")
def llama(tiny_root):
    return tiny_root("llama")


def test_preempted_sequences_end_as_if_nothing_had_happened(llama):
    # Twelve pages of sixteen tokens: eight sequences of up to sixty cannot all stay.
    roomy, tight = load(llama), load(llama, pages=13)
    batch = [ask(str(i), range(i, i + 12), seed=i, max_tokens=48, prompt_logprobs=1) for i in range(8)]
    assert run(tight, batch) == run(roomy, batch)
    assert tight.stats().preemptions > 0
    assert tight.stats().pages_used == 0


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_a_resumed_sequence_goes_on_at_the_next_token(tiny_root, family):
    engine = load(tiny_root(family))
    whole = {"measures": Measures(entropy=True, kl=True, top_k_mass=3), "distributions": (0, 7, 15)}
    request = ask("a", range(20), seed=5, max_tokens=16, frequency_penalty=0.5, logprobs=2, **whole)
    whole = run(engine, [request])["a"]
    for done in (1, 7, 15):
        engine.submit(request, tuple(whole.ids[:done]))
        rest = []
        while not engine.idle:
            for output in engine.step():
                rest += output.tokens
        assert rest == whole.tokens[done:]


def test_a_prefix_is_found_again_and_gives_the_same_bits(llama):
    cached, plain = load(llama), load(llama, prefix_caching=False)
    context = [(7 * i) % VOCAB for i in range(100)]
    endings = [
        ask(str(i), [*context, i, i + 1], prompt_logprobs=3, max_tokens=i % 3, project="p") for i in range(6)
    ]
    expected = run(plain, endings)
    assert plain.stats().prefix_hits == 0
    # Together: the first to be scheduled computes the context for all. Again: nobody does.
    for round_ in (1, 2):
        assert run(cached, endings) == expected
        assert cached.stats().prefix_hits >= round_ * 5 * 95
    assert cached.stats().prefill_tokens < 200


def test_a_prefix_is_not_shared_between_projects(llama):
    engine = load(llama)
    for project in ("a", "b"):
        run(engine, [ask("x", range(64), project=project)])
    assert engine.stats().prefix_hits == 0


def test_choices_of_one_seed_differ(llama):
    answers = run(load(llama), [ask(str(c), [1, 2, 3], seed=9, choice=c, max_tokens=12) for c in range(8)])
    assert len({tuple(answer.ids) for answer in answers.values()}) == 8


def test_all_pages_come_back(llama):
    engine = load(llama, max_num_batched_tokens=512)
    for index in range(30):
        engine.submit(ask(str(index), range(40), max_tokens=30))
    for _ in range(5):
        engine.step()
    assert engine.stats().pages_used > 0
    for index in range(30):
        engine.abort(str(index))
    engine.abort("never heard of")
    assert engine.idle
    assert engine.stats().pages_used == 0


def test_the_stats_count_what_was_done(llama):
    engine = load(llama, max_num_batched_tokens=16)
    batch = [ask("a", range(30), max_tokens=5), ask("b", range(100, 120), max_tokens=0, prompt_logprobs=0)]
    run(engine, batch)
    stats = engine.stats()
    assert (stats.prefill_tokens, stats.decode_tokens, stats.scored_tokens) == (50, 4, 19)
    assert stats.batch_tokens == 54
    assert stats.steps >= 2 + 4
    assert stats.step_seconds > 0
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)


def break_steps(engine: Engine, monkeypatch, culprit: str, times: float = float("inf")) -> None:
    """Let every step that has the sequence `culprit` in it run out of memory, at most `times` times."""
    honest, left = engine._runner.run, [times]

    def run_or_break(chunks):
        if left[0] > 0 and any(chunk.sequence.sequence_id == culprit for chunk in chunks):
            left[0] -= 1
            raise MemoryError("no room for this one")
        return honest(chunks)

    monkeypatch.setattr(engine._runner, "run", run_or_break)


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("scored", [None, 2])
def test_a_sequence_that_breaks_its_step_fails_alone(llama, monkeypatch, caching, scored):
    batch = [
        ask(str(i), [*range(50), i], seed=i, max_tokens=9, prompt_logprobs=scored, project="p")
        for i in range(9)
    ]
    expected = run(load(llama), batch)
    engine = load(llama, prefix_caching=caching, max_num_batched_tokens=64)
    break_steps(engine, monkeypatch, "4")
    results = run(engine, batch)
    assert results["4"].finish == "error"
    assert results["4"].error == "MemoryError: no room for this one"
    del results["4"], expected["4"]
    assert results == expected
    assert engine.stats().pages_used == 0


def test_a_step_that_broke_by_chance_fails_nobody(llama, monkeypatch):
    batch = [ask(str(i), range(i, i + 30), seed=i, max_tokens=9) for i in range(6)]
    expected = run(load(llama), batch)
    engine = load(llama)
    break_steps(engine, monkeypatch, "2", times=1)
    assert run(engine, batch) == expected


def test_sequences_that_come_and_go_during_a_trial_are_not_lost(llama, monkeypatch):
    engine = load(llama)
    batch = [ask(str(i), range(i, i + 30), seed=i, max_tokens=9) for i in range(6)]
    expected = run(load(llama), [*batch, ask("late", [5], max_tokens=4)])
    break_steps(engine, monkeypatch, "3")
    for request in batch:
        engine.submit(request)
    assert engine.step() == []
    engine.submit(ask("late", [5], max_tokens=4))
    engine.submit(ask("gone", [5]))
    for name in ("0", "gone"):
        engine.abort(name)
    results = collect(engine)
    assert results.pop("3").finish == "error"
    assert results == {name: expected[name] for name in ("1", "2", "4", "5", "late")}
    assert engine.idle


def test_a_prompt_whose_logits_are_not_finite_fails_alone(llama, monkeypatch):
    engine = load(llama)
    honest = engine._runner.run

    def poisoned(chunks):
        hidden = honest(chunks)
        if any(chunk.sequence.sequence_id == "bad" for chunk in chunks):
            hidden[:] = float("nan")
        return hidden

    monkeypatch.setattr(engine._runner, "run", poisoned)
    results = run(engine, [ask("good", [1, 2]), ask("bad", [3, 4])])
    assert results["good"].finish == "length"
    assert "not finite" in (results["bad"].error or "")
