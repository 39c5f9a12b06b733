"""Sequences that are written to while tokens are generated: nothing but the request decides what they say."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.drive import Result, ask, load_tiny
from tests.internals.plans import MAX_MODEL_LEN, Machine
from transom.engine.kernels.cache import PAGE
from transom.schema.measures import Measures
from transom.schema.plans.writes import Write
from transom.services.answering.steering import steer

FAMILIES = ("llama", "gpt_neox")
"""Layers that open, and hooks at the borders of modules."""
VOCAB, WIDTH = 384, 64
SCHEDULES = {
    "chunks of 16": {"max_num_batched_tokens": 16},
    "no prefix cache": {"max_num_batched_tokens": 16, "prefix_caching": False},
    "chunks of 7, three at once": {"max_num_batched_tokens": 7, "max_num_seqs": 3},
    "a cache that overflows": {"max_num_batched_tokens": 64, "pages": 14},
}
SHARED = tuple((i * 31) % VOCAB for i in range(70))


def machine(root, spool, *, pages=0, **options) -> Machine:
    if pages:
        attention = load_tiny(root).engine._runner._attention
        options["cache_bytes"] = pages * attention.bytes_per_token(torch.float32) * PAGE
    return Machine(root, spool, **options)


@pytest.fixture(scope="module", params=FAMILIES)
def machines(request, tiny_root, tmp_path_factory):
    """One model under schedules that share nothing."""
    root, spool = tiny_root(request.param), tmp_path_factory.mktemp("spool")
    return machine(root, spool), [machine(root, spool, **options) for options in SCHEDULES.values()]


def inline(scale):
    return {"inline": [scale * ((i * 7) % 11 - 5) for i in range(WIDTH)]}


positions = st.sampled_from(
    [
        {},
        {"pos": "last"},
        {"pos": {"phase": "generated"}},
        {"pos": {"phase": "generated", "from": 2}},
        {"pos": {"from": -4}},
        {"pos": {"from": 17}},
        {"pos": [1, 18]},
    ]
)
layers = st.integers(0, 2)
writes = st.lists(
    st.builds(
        lambda change, layer, pos: {**change, "at": change["at"].format(layer), **pos},
        st.sampled_from(
            [
                {"at": "resid_post.{}", "op": "add", "value": inline(0.2), "scale": 2.0},
                {"at": "resid_pre.{}", "op": "noise", "scale": 0.5},
                {"at": "z.{}", "op": "zero", "head": [1]},
                {"at": "mlp_act.{}", "op": "set", "value": 0.25, "unit": [3, 5]},
                {"at": "attn_probs.{}", "op": "zero", "head": [0], "unit": [1, 2]},
                {"at": "resid_post.{}", "op": "project_out", "value": inline(1.0)},
                {"at": "mlp_out.{}", "op": "scale_along", "value": inline(1.0), "scale": -1.0},
            ]
        ),
        layers,
        positions,
    ),
    max_size=3,
)
samplings = st.fixed_dictionaries(
    {"seed": st.integers(0, 9), "max_tokens": st.integers(4, 10), "temperature": st.sampled_from([0.0, 1.0])},
    optional={
        "choice": st.integers(0, 2),
        "project": st.sampled_from(["a", "b"]),
        "logprobs": st.integers(0, 3),
        "prompt_logprobs": st.integers(0, 2),
        "measures": st.just(Measures(entropy=True, kl=True, top_k_mass=3)),
        "prompt_measures": st.just(Measures(entropy=True)),
        "distributions": st.just((0, 2)),
        "stop_token_ids": st.just(tuple(range(0, VOCAB, 9))),
    },
)
batches = st.lists(
    st.tuples(
        st.sampled_from([20, 33, 64, 70]), st.lists(st.integers(0, VOCAB - 1), max_size=9), samplings, writes
    ),
    min_size=2,
    max_size=8,
)


def steered(machine, name, prompt, written, **sampling):
    """A request as the server makes it."""
    request = ask(name, prompt, **sampling)
    prompts, most = [request.prompt_token_ids], request.sampling.max_tokens
    there = {point.name for point in machine._backend.points if point.layers}
    written = [write for write in written if write["at"].partition(".")[0] in there]
    found = steer(machine._backend, [Write.model_validate(write) for write in written], {}, prompts, most, 1)
    return request if found is None else replace(request, changes=found.by_prompt[0])


def run(machine, requests, generated=None):
    """What becomes of requests that are submitted at once, by name."""
    for request in requests:
        machine.engine.submit(request, (generated or {}).get(request.sequence_id, ()))
    results = defaultdict(Result)
    while not machine.engine.idle:
        for output in machine.engine.step()[0]:
            results[output.sequence_id].add(output)
    assert not machine.engine._steering._taps
    return {request.sequence_id: results[request.sequence_id] for request in requests}


def gathered(machine, batch):
    return [
        steered(machine, str(index), SHARED[:length] + tuple(more), written, **sampling)
        for index, (length, more, sampling, written) in enumerate(batch)
    ]


@settings(max_examples=4, deadline=None)
@given(batches)
def test_every_answer_equals_the_one_given_alone(machines, batch):
    alone, crowded = machines
    requests = gathered(alone, batch)
    expected = {r.sequence_id: run(alone, [r])[r.sequence_id] for r in requests}
    for machine in crowded:
        assert run(machine, requests) == expected


@settings(max_examples=4, deadline=None)
@given(batches, st.integers(0, 2**32))
def test_an_answer_goes_on_in_another_engine_from_wherever_it_was(machines, batch, seed):
    first, others = machines
    requests = gathered(first, batch)
    whole = run(first, requests)
    chance = random.Random(seed)
    told = {name: tuple(result.ids[: chance.randrange(len(result.ids))]) for name, result in whole.items()}
    rest = run(others[1], requests, told)
    for name, result in whole.items():
        assert rest[name].tokens == result.tokens[len(told[name]) :]
        assert rest[name].finish == result.finish


def test_the_pages_before_the_first_write_are_shared_and_none_after(machines):
    one, _ = machines
    prompt, late = SHARED[:64], {"at": "resid_post.1", "op": "zero", "pos": {"from": 40}}
    run(one, [ask("plain", prompt, max_tokens=2, project="pages")])
    before = one.engine.stats().prefix_hits
    run(one, [steered(one, "late", prompt, [late], max_tokens=2, project="pages")])
    assert one.engine.stats().prefix_hits - before == 40 // PAGE * PAGE
    run(one, [steered(one, "again", prompt, [late], max_tokens=2, project="pages")])
    assert one.engine.stats().prefix_hits - before == 2 * (40 // PAGE * PAGE)


def test_a_write_that_is_too_much_ends_its_own_sequence_after_the_tokens_that_were_sound(machines):
    alone, crowded = machines
    huge = {"at": "mlp_out.1", "op": "set", "value": 1e20, "pos": {"phase": "generated", "from": 2}}
    sampling = {"max_tokens": 9, "temperature": 1.0}
    plain = ask("plain", SHARED[:20], **sampling)
    expected = run(alone, [plain])["plain"]
    for machine in (alone, *crowded):
        broken = steered(machine, "broken", SHARED[:20], [huge], **sampling)
        found = run(machine, [plain, broken])
        assert found["plain"] == expected
        assert found["broken"].tokens == expected.tokens[:3]
        assert (found["broken"].finish, found["broken"].param) == ("error", "transom.write.0")
        assert "larger than 1e+12" in found["broken"].error
        assert machine.engine.stats().pages_used == 0


def test_writes_that_do_not_fit_after_all_end_their_sequence_and_nobody_elses(machines):
    alone, _ = machines
    good = steered(alone, "good", SHARED[:20], [{"at": "z.0", "op": "zero"}])
    wide = steered(alone, "bad", SHARED[:20], [{"at": "resid_post.0", "op": "add", "value": inline(1.0)}])
    narrow = {name: replace(data, shape=(3,), data=bytes(12)) for name, data in wide.changes.tensors.items()}
    nowhere = replace(wide.changes.writes[0], site=replace(wide.changes.writes[0].site, layer=99))
    found = run(
        alone,
        [
            good,
            replace(wide, changes=replace(wide.changes, tensors=narrow)),
            replace(wide, sequence_id="lost", changes=replace(wide.changes, writes=(nowhere,))),
        ],
    )
    assert found["good"].finish == "length"
    assert (found["bad"].finish, found["bad"].param) == ("error", "transom.write.0.value")
    assert (found["lost"].finish, found["lost"].param) == ("error", None)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_who_is_aborted_leaves_nothing(machines, steps):
    alone, _ = machines
    request = steered(alone, "gone", SHARED[:33], [{"at": "z.0", "op": "zero"}], max_tokens=9)
    alone.engine.submit(request)
    for _ in range(steps):
        alone.engine.step()
    alone.engine.abort("gone")
    assert alone.engine.idle
    assert not alone.engine._steering._taps
    stats = alone.engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)


def test_a_choice_has_noise_of_its_own(machines):
    alone, _ = machines
    noise = [{"at": "resid_post.0", "op": "noise", "scale": 1.0}]
    draws = [
        steered(alone, str(choice), SHARED[:20], noise, choice=choice, temperature=0.0, prompt_logprobs=0)
        for choice in (0, 1)
    ]
    found = run(alone, draws)
    assert found["0"].prompt != found["1"].prompt
    assert run(alone, [replace(draws[0], sequence_id="2")])["2"].prompt == found["0"].prompt


def test_the_longest_is_what_it_was_however_few_tokens_are_asked_for_again(tiny_root, tmp_path):
    """A pattern is as wide as the sequence could become; a replay of a part asks for less."""
    alone = machine(tiny_root("llama"), tmp_path)
    pattern = {"inline": [[0.01 * i for i in range(30)]]}
    write = {"at": "attn_probs.1", "op": "set", "value": pattern, "pos": "last", "head": [0]}
    request = steered(alone, "whole", SHARED[:20], [write], max_tokens=10)
    part = replace(request, sequence_id="part", sampling=replace(request.sampling, max_tokens=4))
    found = run(alone, [request, part])
    assert found["part"].tokens == found["whole"].tokens[:4]
    assert found["whole"].error is None
    assert request.changes.longest == 30 <= MAX_MODEL_LEN
