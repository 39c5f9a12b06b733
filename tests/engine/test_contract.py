"""The engine's contract: an answer is a function of deployment, request and seed, to the bit.

Random batch mates, chunkings, arrival orders, aborts and preemptions; every answer must equal the one that
the same request gets alone.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.drive import Result, ask, load_tiny, run
from transom.schema.generation import SequenceRequest

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
            "top_k": st.sampled_from([0, 5, 40]),
            "top_p": st.sampled_from([0.5, 0.95]),
            "min_p": st.just(0.05),
            "frequency_penalty": st.sampled_from([-1.0, 1.5]),
            "presence_penalty": st.just(0.7),
            "logit_bias": st.just(((3, 4.0), (17, -100.0))),
            "logprobs": st.integers(0, 20),
            "prompt_logprobs": st.integers(0, 3),
            "stop_token_ids": st.just(tuple(range(0, VOCAB, 9))),
        },
    ),
)


def named(items: list[SequenceRequest]) -> list[SequenceRequest]:
    return [
        SequenceRequest(
            sequence_id=str(i), prompt_token_ids=r.prompt_token_ids, sampling=r.sampling, choice=r.choice
        )
        for i, r in enumerate(items)
    ]


@pytest.fixture(scope="module")
def engines(tiny_root):
    """One model under schedules that share nothing: chunk sizes, batch sizes, and a cache that overflows."""
    root = tiny_root("llama")
    alone = load_tiny(root).engine
    others = [
        load_tiny(root, max_num_batched_tokens=512),
        load_tiny(root, max_num_batched_tokens=16),
        load_tiny(root, max_num_batched_tokens=7, max_num_seqs=3),
    ]
    return alone, [loaded.engine for loaded in others]


@settings(max_examples=20, deadline=None)
@given(st.lists(requests, min_size=1, max_size=24))
def test_every_answer_equals_the_one_given_alone(engines, batch):
    alone, crowded = engines
    batch = named(batch)
    expected = {r.sequence_id: run(alone, [r])[r.sequence_id] for r in batch}
    for engine in crowded:
        assert run(engine, batch) == expected


@settings(max_examples=15, deadline=None)
@given(st.lists(requests, min_size=1, max_size=16), st.integers(0, 2**32))
def test_arrivals_and_aborts_in_mid_flight_change_nothing(engines, batch, seed):
    alone, (engine, *_) = engines
    batch, chance = named(batch), random.Random(seed)
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
            result = results[output.sequence_id]
            result.tokens += output.tokens
            result.prompt = output.prompt_logprobs or result.prompt
            result.finish = output.finish_reason
    for request in batch:
        if request.sequence_id not in doomed:
            assert results[request.sequence_id] == run(alone, [request])[request.sequence_id]


def test_preempted_sequences_end_as_if_nothing_had_happened(tiny_root):
    root = tiny_root("llama")
    roomy, tight = load_tiny(root), load_tiny(root, max_model_len=128)
    scheduler = tight.engine._scheduler
    # Twelve pages of sixteen tokens: eight sequences of up to sixty cannot all stay.
    scheduler._free[:] = scheduler._free[-12:]
    batch = named([ask("", range(i, i + 12), seed=i, max_tokens=48, prompt_logprobs=1) for i in range(8)])
    assert run(tight.engine, batch) == run(roomy.engine, batch)
    assert scheduler.preemptions > 0
    assert len(scheduler._free) == 12


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_a_resumed_sequence_goes_on_at_the_next_token(tiny_root, family):
    engine = load_tiny(tiny_root(family)).engine
    request = ask("a", range(20), seed=5, max_tokens=16, frequency_penalty=0.5, logprobs=2)
    whole = run(engine, [request])["a"]
    for done in (1, 7, 15):
        engine.submit(request, tuple(whole.ids[:done]))
        rest = []
        while not engine.idle:
            for output in engine.step():
                rest += output.tokens
        assert rest == whole.tokens[done:]


def test_choices_of_one_seed_differ(engines):
    answers = run(engines[0], [ask(str(c), [1, 2, 3], seed=9, choice=c, max_tokens=12) for c in range(8)])
    assert len({tuple(answer.ids) for answer in answers.values()}) == 8


def test_all_pages_come_back(engines):
    engine = engines[1][0]
    before = len(engine._scheduler._free)
    for index in range(30):
        engine.submit(ask(str(index), range(40), max_tokens=30))
    for _ in range(5):
        engine.step()
    for index in range(30):
        engine.abort(str(index))
    engine.abort("never heard of")
    assert engine.idle
    assert len(engine._scheduler._free) == before
