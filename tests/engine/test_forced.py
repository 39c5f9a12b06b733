"""Teacher forcing: judging known tokens gives the bits of generating them, in every company.

What a request generates alone is forced through engines with schedules that share nothing. Each token must
come out as it was drawn, with the same numbers and the same ending, and the verdict that it would be drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.engine.drive import Result, ask, collect, forced, load_tiny, run, unjudged
from tests.engine.test_contract import SCHEDULES, VOCAB, batches, break_steps, load
from tests.tiny import FAMILIES
from transom.engine import sampler
from transom.engine.sampler import Read
from transom.engine.sequence import Sequence
from transom.schema.changes import Changes, SiteSpec, WriteSpec
from transom.schema.generation import SamplingParams, SequenceRequest, Verdict
from transom.schema.measures import Measures

EXACT = 0.0


@pytest.fixture(scope="module", params=FAMILIES)
def engines(request, tiny_root):
    """One model under schedules that share nothing."""
    root = tiny_root(request.param)
    return load(root), [load(root, **options) for options in SCHEDULES.values()]


@pytest.fixture(scope="module")
def llama(tiny_root):
    return tiny_root("llama")


def misses(result: Result) -> list[int]:
    """Where another token would have been drawn."""
    assert all(token.verdict is not None for token in result.tokens)
    return [at for at, token in enumerate(result.tokens) if token.verdict.token_id != token.token_id]


def assert_as_drawn(judged: Result, drawn: Result) -> None:
    assert unjudged(judged) == drawn
    assert [token.verdict for token in judged.tokens] == [
        Verdict(token.token_id, EXACT) for token in drawn.tokens
    ]


@settings(max_examples=4, deadline=None)
@given(batches)
def test_forced_sequences_have_the_bits_of_generated_ones_in_every_company(engines, batch):
    alone, crowded = engines
    drawn = {r.sequence_id: run(alone, [r])[r.sequence_id] for r in batch}
    again = [forced(r, drawn[r.sequence_id].ids) for r in batch]
    # Half of them beside others that generate.
    mixed = [(r, f)[index % 2] for index, (r, f) in enumerate(zip(batch, again, strict=True))]
    for engine in [alone, *crowded]:
        for judged in (run(engine, again), run(engine, mixed)):
            for request in batch:
                name = request.sequence_id
                if judged[name].tokens[:1] and judged[name].tokens[0].verdict is not None:
                    assert_as_drawn(judged[name], drawn[name])
                else:
                    assert judged[name] == drawn[name]


SAMPLING = {
    "greedy": {"temperature": 0.0},
    "plain": {},
    "hot": {"temperature": 1.7},
    "nearly greedy": {"temperature": 1e-6},
    "top k": {"top_k": 7},
    "top p": {"top_p": 0.6, "temperature": 1.3},
    "min p": {"min_p": 0.1},
    "all filters": {"top_k": 40, "top_p": 0.9, "min_p": 0.02},
    "frequency": {"frequency_penalty": 1.5, "temperature": 0.5},
    "presence": {"presence_penalty": -1.0},
    "both penalties, greedy": {"frequency_penalty": 0.8, "presence_penalty": 0.4, "temperature": 0.0},
    "bias": {"logit_bias": ((3, 4.0), (17, -100.0))},
    "bias and penalty": {"logit_bias": ((3, 9.0),), "frequency_penalty": 2.0},
    "another choice": {"choice": 4},
    "logprobs": {"logprobs": 20, "prompt_logprobs": 2},
    "measures": {"measures": Measures(entropy=True, rank=True, surprisal=True, kl=True, top_k_mass=9)},
    "distributions": {"distributions": (0, 3, 17), "prompt_distributions": (1, 2)},
}


@pytest.mark.parametrize("asked", SAMPLING.values(), ids=SAMPLING.keys())
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_each_parameter_is_judged_as_it_was_drawn(llama, asked, rows):
    engine = load(llama, max_num_batched_tokens=rows)
    request = ask("r", range(20, 43), **{"max_tokens": 30, "seed": 11} | asked)
    drawn = run(engine, [request])["r"]
    assert len(drawn.ids) == 30
    assert_as_drawn(run(engine, [forced(request, drawn.ids)])["r"], drawn)


@pytest.mark.parametrize("rows", [3, 256])
def test_bfloat16_is_judged_to_the_bit_too(llama, rows):
    engine = load(llama, dtype="bfloat16", max_num_batched_tokens=rows)
    batch = [
        ask(str(i), range(i, 30), max_tokens=40, seed=i, logprobs=3, top_p=0.9, presence_penalty=0.2)
        for i in range(5)
    ]
    drawn = {r.sequence_id: run(engine, [r])[r.sequence_id] for r in batch}
    judged = run(engine, [forced(r, drawn[r.sequence_id].ids) for r in batch])
    for name, result in judged.items():
        assert_as_drawn(result, drawn[name])


@pytest.mark.parametrize("asked", SAMPLING.values(), ids=SAMPLING.keys())
@pytest.mark.parametrize("at", [0, 9, 29])
def test_a_token_that_was_exchanged_is_found_where_it_is(llama, asked, at):
    engine = load(llama)
    request = ask("r", range(20, 43), **{"max_tokens": 30, "seed": 11} | asked)
    drawn = run(engine, [request])["r"]
    ids = list(drawn.ids)
    ids[at] = (ids[at] + 1) % VOCAB
    judged = run(engine, [forced(request, ids)])["r"]
    assert judged.ids == ids
    assert misses(judged)[0] == at
    verdict = judged.tokens[at].verdict
    assert verdict.token_id == drawn.ids[at]
    assert verdict.margin > 0
    # It goes on: what comes after is judged by what was there before it.
    assert len(judged.tokens) == 30
    assert unjudged(judged).tokens[:at] == drawn.tokens[:at]


def test_another_seed_and_another_temperature_are_found(llama):
    engine = load(llama)
    request = ask("r", range(30), max_tokens=40, seed=5)
    ids = run(engine, [request])["r"].ids
    for other in ({"seed": 6}, {"temperature": 0.4}):
        wrong = replace(request, sampling=replace(request.sampling, **other))
        assert len(misses(run(engine, [forced(wrong, ids)])["r"])) > 3


ENDINGS = {
    "length": ({"max_tokens": 6}, 6, "length", None),
    "known tokens end before": ({"max_tokens": 9}, 6, "abort", None),
    "nothing is known": ({"max_tokens": 9}, 0, "abort", None),
    "only the prompt": ({"max_tokens": 0, "prompt_logprobs": 1}, 0, "length", None),
}


@pytest.mark.parametrize(("asked", "count", "finish", "_"), ENDINGS.values(), ids=ENDINGS.keys())
def test_a_forced_sequence_ends_where_generating_would(llama, asked, count, finish, _):
    engine = load(llama)
    request = ask("r", range(40), temperature=0.0, **asked)
    ids = run(engine, [request])["r"].ids
    judged = run(engine, [forced(request, ids[:count])])["r"]
    assert (judged.finish, len(judged.tokens)) == (finish, count)
    assert (judged.prompt is None) == ("prompt_logprobs" not in asked)


@pytest.mark.parametrize("rows", [3, 256])
def test_nothing_is_said_of_what_comes_after_the_token_that_ends_it(llama, rows):
    engine = load(llama, max_num_batched_tokens=rows)
    request = ask("r", range(40), max_tokens=12, stop_token_ids=(99,))
    judged = run(engine, [forced(request, [5, 6, 99, 7, 8])])["r"]
    assert (judged.ids, judged.finish) == ([5, 6, 99], "stop")
    assert engine.idle
    ended = replace(request, sampling=replace(request.sampling, ignore_eos=False, stop_token_ids=()))
    options = {"eos_token_ids": (2,), "max_num_batched_tokens": rows}
    judged = run(load(llama, **options), [forced(ended, [5, 2, 7])])["r"]
    assert (judged.ids, judged.finish) == ([5, 2], "stop")


def test_a_forced_sequence_is_preempted_and_goes_on(llama):
    alone, narrow = load(llama), load(llama, pages=14, max_num_batched_tokens=16)
    batch = [
        ask(str(i), [(7 * i + j) % VOCAB for j in range(20)], max_tokens=40, frequency_penalty=0.5)
        for i in range(8)
    ]
    drawn = run(alone, batch)
    half = [forced(r, drawn[r.sequence_id].ids) if int(r.sequence_id) % 2 else r for r in batch]
    judged = run(narrow, half)
    assert narrow.stats().preemptions > 0
    for request in half:
        name = request.sequence_id
        if request.forced is None:
            assert judged[name] == drawn[name]
        else:
            assert_as_drawn(judged[name], drawn[name])


@pytest.mark.parametrize("known", [0, 1, 7, 29])
def test_a_forced_sequence_goes_on_after_its_engine_died(llama, known):
    engine = load(llama, max_num_batched_tokens=8)
    request = ask(
        "r", range(20), max_tokens=30, frequency_penalty=1.0, prompt_logprobs=1, distributions=(3, 20)
    )
    drawn = run(engine, [request])["r"]
    engine.submit(forced(request, drawn.ids), tuple(drawn.ids[:known]))
    judged = collect(engine)["r"]
    expected = replace(drawn, tokens=drawn.tokens[known:], prompt=None if known else drawn.prompt)
    assert_as_drawn(judged, expected)


@pytest.mark.parametrize("rows", [4, 256])
def test_a_step_that_breaks_counts_nothing_twice(llama, monkeypatch, rows):
    engine = load(llama, max_num_batched_tokens=rows)
    batch = [
        ask(
            str(i),
            range(i, 30),
            max_tokens=20,
            presence_penalty=0.3,
            frequency_penalty=1.2,
            prompt_logprobs=0,
        )
        for i in range(3)
    ]
    drawn = run(engine, batch)
    break_steps(engine, monkeypatch, culprit="1", times=3)
    judged = run(engine, [forced(r, drawn[r.sequence_id].ids) for r in batch])
    survivors = [name for name in judged if judged[name].error is None]
    assert {"0", "2"} <= set(survivors)
    for name in survivors:
        assert_as_drawn(judged[name], drawn[name])


def test_the_prompt_is_shared_and_every_answer_is_judged(llama):
    engine = load(llama)
    prompt = [(13 * i) % VOCAB for i in range(64)]
    batch = [ask(str(i), prompt, max_tokens=24, seed=i) for i in range(4)]
    drawn = run(engine, batch)
    again = [forced(r, drawn[r.sequence_id].ids) for r in batch]
    first, before = run(engine, again), engine.stats()
    second, after = run(engine, again), engine.stats()
    assert first == second
    for name, result in second.items():
        assert_as_drawn(result, drawn[name])
    assert after.prefix_hits - before.prefix_hits == 4 * 48
    assert after.scored_tokens - before.scored_tokens == 4 * 24
    assert after.decode_tokens == before.decode_tokens


def test_scores_of_a_prompt_are_not_left_on_a_page_that_an_answer_begins_on(llama):
    engine = load(llama)
    request = ask("r", range(20), max_tokens=40, prompt_logprobs=0)
    ids = run(engine, [request])["r"].ids
    run(engine, [forced(request, ids)])
    whole = [*range(20), *ids]
    fresh = load(llama, prefix_caching=False)
    again = ask("s", whole, max_tokens=0, prompt_logprobs=0)
    assert run(engine, [again]) == run(fresh, [again])


@pytest.mark.parametrize("rows", [1, 6, 256])
def test_writes_touch_the_same_positions(llama, rows):
    # Of the prompt, of what was generated, and across both.
    writes = (
        WriteSpec(site=SiteSpec(point="resid_post", layer=1, positions=(3, 4)), op="add", number=0.7),
        WriteSpec(
            site=SiteSpec(point="mlp_out", layer=0, positions=tuple(range(12, 30))), op="noise", scale=0.5
        ),
        WriteSpec(site=SiteSpec(point="z", layer=2, positions=(8, 20), heads=(1,)), op="zero"),
    )
    changes = Changes(writes=writes, longest=40)
    engine = tracing(llama, max_num_batched_tokens=rows)
    request = replace(ask("r", range(10), max_tokens=30, seed=2), changes=changes)
    drawn = steered(engine, request)
    assert drawn.ids != steered(engine, replace(request, changes=None)).ids
    assert_as_drawn(steered(engine, forced(request, drawn.ids)), drawn)
    plain = steered(engine, forced(replace(request, changes=None), drawn.ids))
    assert misses(plain) or unjudged(plain) != drawn


def test_a_write_that_is_too_much_for_a_known_token_is_refused_by_name(llama):
    site = SiteSpec(point="resid_post", layer=1, positions=(15,))
    changes = Changes(writes=(WriteSpec(site=site, op="set", number=1e13),), longest=40)
    engine = tracing(llama)
    request = replace(ask("r", range(10), max_tokens=8), changes=changes)
    drawn = steered(engine, request)
    assert (drawn.param, len(drawn.ids)) == ("transom.write.0", 6)
    until = replace(request, sampling=replace(request.sampling, max_tokens=6))
    assert steered(engine, forced(until, drawn.ids)).finish == "length"
    judged = steered(engine, forced(request, [*drawn.ids, 1, 2]))
    assert (judged.param, judged.finish) == ("transom.write.0", "error")


def tracing(root, **options):
    from queue import SimpleQueue

    from transom.engine.gradients import Differentiator
    from transom.engine.tracing import TracingEngine

    loaded = load_tiny(root, **options)
    shapes = loaded.places.shapes
    return TracingEngine(
        loaded.engine, loaded.lens, shapes, SimpleQueue(), differentiator=Differentiator(root, shapes)
    )


def steered(engine, request) -> Result:
    engine.submit(request)
    result = Result()
    while not engine.idle:
        for output in engine.step()[0]:
            result.add(output)
    return result


def judge(logits: np.ndarray, known: int, **sampling) -> Verdict:
    params = SamplingParams(**{"seed": 3, "max_tokens": 4} | sampling)
    request = SequenceRequest(sequence_id="", prompt_token_ids=(1, 2), sampling=params, forced=(known,))
    rows = torch.from_numpy(logits[None])
    return sampler.read(lambda rows: rows, rows, [Read(Sequence(request), known, 2)])[0].verdict


def test_a_margin_is_the_difference_of_two_logits_where_it_is_greedy():
    logits = np.array([1.0, 3.5, 2.25, 3.5], np.float32)
    assert judge(logits, 1, temperature=0.0) == Verdict(1, 0.0)
    assert judge(logits, 2, temperature=0.0) == Verdict(1, 1.25)
    # A tie goes to the lower id, and the other one was not missed by anything.
    assert judge(logits, 3, temperature=0.0) == Verdict(1, 0.0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_margin_is_how_much_the_logit_would_have_to_rise(temperature):
    logits = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    drawn = judge(logits, 0, temperature=temperature).token_id
    for known in range(64):
        verdict = judge(logits, known, temperature=temperature)
        assert verdict.token_id == drawn
        if known == drawn:
            assert verdict.margin == 0.0
            continue
        for change, token in ((1e-4, known), (-1e-4, drawn)):
            raised = logits.copy()
            raised[known] += np.float32(verdict.margin + change)
            assert judge(raised, known, temperature=temperature).token_id == token


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}], ids=str)
def test_a_token_that_a_filter_removes_is_infinitely_far(filters):
    logits = np.array([0.0, 5.0, 4.9, -3.0, 1.0], np.float32)
    assert judge(logits, 3, **filters).margin == math.inf
    assert judge(logits, 1, **filters).margin < math.inf


def test_penalties_count_what_was_known_before_each_token():
    params = {"temperature": 0.0, "frequency_penalty": 2.0}
    request = SequenceRequest(
        sequence_id="",
        prompt_token_ids=(0,),
        sampling=SamplingParams(seed=0, max_tokens=9, **params),
        forced=(2, 2, 1, 2),
    )
    sequence = Sequence(request)
    logits = np.tile(np.array([0.0, 1.5, 3.0], np.float32), (4, 1))
    reads = [Read(sequence, token, 1 + at) for at, token in enumerate(request.forced)]
    found = sampler.read(lambda rows: rows, torch.from_numpy(logits), reads)
    assert [token.verdict.token_id for token in found] == [2, 1, 1, 0]
    assert [token.verdict.margin for token in found] == [0.0, 0.5, 0.0, 1.0]
    # Once more, from the second on, as after a step that broke.
    assert sampler.read(lambda rows: rows, torch.from_numpy(logits[1:]), reads[1:]) == found[1:]
