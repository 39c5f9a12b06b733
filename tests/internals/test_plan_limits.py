"""Plans that ask for too much, or for what is not there: refused by name, before they take what they ask."""

from __future__ import annotations

import resource
import time
import tracemalloc

import numpy as np
import pytest

from tests.internals.plans import MAX_MODEL_LEN, Machine
from tests.internals.valid_plans import CLEAN, GENERATED, OTHER, SHORT, lens, packed, plan, write
from transom.errors import InvalidRequest, PlanFailed
from transom.schema.plans.writes import OPERATIONS
from transom.services.planning.sizes import MAX_BYTES

OPS = sorted(OPERATIONS)
MOST_SECONDS = 10.0


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    return Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"))


def reading(**site):
    return plan({"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.1"} | site}}}, "a.x")


def writing(source=CLEAN, **change):
    runs = {
        "s": {"input": source, "read": {"x": {"at": "resid_post.1"}, "m": {"at": "z.1", "reduce": "mean"}}},
        "a": {"input": CLEAN, "write": [change], "read": {"x": {"at": "resid_post.2"}}},
    }
    return plan(runs, "a.x")


def deriving(**derive):
    return plan({"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.*"}}}}, "derive.d", derive=derive)


def pyramid(floors):
    """Each value is the one below, 64 times over."""
    derive = {"d0": {"stack": ["a.x"] * 64}}
    derive |= {f"d{floor}": {"stack": [f"derive.d{floor - 1}"] * 64} for floor in range(1, floors)}
    return plan(
        {"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.*"}}}}, f"derive.d{floors - 1}", derive=derive
    )


def crowd(reads, tokens):
    read = {f"r{index}": {"at": "resid_post.*", "unit": [0]} for index in range(reads)}
    run = {"input": {"token_ids": [9] * tokens}, "read": read}
    return plan({f"a{index}": run for index in range(256)}, "a0.r0")


REFUSED = {
    "a layer beyond the last": (reading(at="resid_post.3"), "runs.a.read.x.at"),
    "a head beyond the last": (reading(at="z.1", head=[4]), "runs.a.read.x.head"),
    "a unit beyond the last": (reading(unit=[0, 64]), "runs.a.read.x.unit"),
    "a unit beyond the sequence": (reading(at="attn_probs.1", unit=[14]), "runs.a.read.x.unit"),
    "a position beyond the last": (reading(pos=[0, 14]), "runs.a.read.x.pos.1"),
    "a position before the first": (reading(pos=-15), "runs.a.read.x.pos"),
    "a span beyond the end": (reading(pos={"from": 0, "to": 2**31 - 1}), "runs.a.read.x.pos"),
    "an occurrence that is not there": (
        reading(pos={"match": "a", "nth": 2**31 - 1}),
        "runs.a.read.x.pos",
    ),
    "a point that is nowhere": (reading(at="router.1"), "runs.a.read.x.at"),
    "a path for a point": (reading(at="../../etc/passwd"), "runs.a.read.x.at"),
    "a token that does not exist": (
        plan({"a": {"input": CLEAN, "read": {"x": lens("resid_post.1", targets=[384])}}}, "a.x"),
        "runs.a.read.x.reduce.unembed.targets.0",
    ),
    "a prompt longer than the context": (
        plan({"a": {"input": {"token_ids": [9] * 97}, "read": {"x": {"at": "resid_post.1"}}}}, "a.x"),
        "runs.a.input",
    ),
    "more tokens than the context": (
        plan({"a": {"input": SHORT, "generate": {"max_tokens": 2**31}}}, "a.tokens"),
        "runs.a.input",
    ),
    "generated positions of one token": (
        plan(
            {
                "a": {
                    "input": SHORT,
                    "generate": {"max_tokens": 1},
                    "read": {"x": {"at": "resid_post.1", "pos": GENERATED}},
                }
            },
            "a.x",
        ),
        "runs.a.read.x.pos",
    ),
    "a swap with a shorter run": (
        writing(SHORT, **write("resid_post.1", "swap", value={"run": "s"})),
        "runs.a.write.0.pos",
    ),
    "a pattern of a shorter run": (
        writing(SHORT, **write("attn_probs.1", "swap", pos=[1], value={"run": "s"})),
        "runs.a.write.0.value",
    ),
    "units of a shorter run's pattern": (
        writing(SHORT, **write("attn_probs.1", "swap", pos=[1], unit=[5], value={"run": "s"})),
        "runs.a.write.0.unit",
    ),
    "a value of another width": (
        writing(**write("resid_post.1", "set", value=packed(63))),
        "runs.a.write.0.value",
    ),
    "a direction for each position": (
        writing(**write("resid_post.1", "project_out", value=packed(14, 64))),
        "runs.a.write.0.value",
    ),
    "a direction that is a number": (
        writing(**write("resid_post.1", "project_out", value=packed(1))),
        "runs.a.write.0.value",
    ),
    "a direction larger than what it is laid on": (
        reading(unit=[0], reduce={"project": packed(2000, 1, 1)}),
        "runs.a.read.x.reduce.project",
    ),
    "a product of two crosswise": (
        plan(
            {"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.*", "unit": [0]}}}},
            "derive.d",
            derive={"d": {"dot": [packed(250_000, 1, 1), packed(1, 250_000, 1)]}},
        ),
        "runs",
    ),
    "a sum of two crosswise": (
        deriving(d={"sub": [packed(250_000, 1), packed(1, 250_000)]}),
        "runs",
    ),
    "a mean that makes it crosswise": (
        plan(
            {"a": {"input": {"token_ids": [9] * 96}, "read": {"x": {"at": "z.*"}}}},
            "derive.d",
            derive={
                "e": {"mean": "a.x", "axis": "unit"},
                "d": {"add": ["derive.e", packed(262_144, 1, 1, 1)]},
            },
        ),
        "runs",
    ),
    "a pyramid": (pyramid(9), "runs"),
    "an axis that is not there": (deriving(d={"mean": "a.x", "axis": "head"}), "derive.d"),
    "values that do not fit": (deriving(d={"sub": ["a.x", packed(63)]}), "derive.d"),
    "every token at every position": (
        plan(
            {
                f"a{index}": {
                    "input": {"token_ids": [9] * 96},
                    "read": {f"r{n}": lens("resid_post.*", "all", vocabulary=True) for n in range(40)},
                }
                for index in range(64)
            },
            "a0.r0",
        ),
        "runs",
    ),
    "more positions than there is room to name": (crowd(64, 96), None),
    "more JSON than is sent": (
        plan(
            {
                "a": {
                    "input": {"token_ids": [9] * 96},
                    "read": {f"r{n}": {"at": "mlp_act.*"} for n in range(30)},
                }
            },
            *(f"a.r{n}" for n in range(30)),
            format="json",
        ),
        "format",
    ),
}


@pytest.mark.parametrize(("content", "param"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_by_name_and_takes_neither_time_nor_room(machine, content, param):
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InvalidRequest) as refused:
            machine.run(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.param == param if param else refused.value.param.startswith("runs.a")
    assert time.process_time() - began < MOST_SECONDS
    assert peak < 256 << 20


def end_of(machine, content):
    try:
        return machine.run(content)
    except InvalidRequest as refusal:
        return refusal


VALUES = {
    "nothing": None,
    "a number": 0.5,
    "nought": 0,
    "a large number": 3e38,
    "a row": packed(64),
    "a row of zeros": {"inline": [0.0] * 64},
    "the largest row": {"inline": [3e38, -3e38] * 32},
    "rows": packed(14, 64),
    "heads": packed(4, 16),
    "another's rows": "s.x",
    "another's mean": "s.m",
    "another run": {"run": "s"},
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("scale", [None, 0, -1.5, 3e38])
def test_every_operation_with_every_value_is_done_or_refused_by_name(machine, op, value, scale):
    change = {key: item for key, item in {"value": value, "scale": scale}.items() if item is not None}
    for at in ("resid_post.1", "z.1", "attn_probs.1"):
        found = end_of(machine, writing(**write(at, op, **change)))
        if isinstance(found, InvalidRequest):
            assert (found.param or "").startswith("runs.a.write.0"), found.message
        else:
            assert np.isfinite(found["a.x"]).all()
    assert machine.engine.idle


def ending_early(machine, **read):
    """A run that ends at its first token, which is said to end it."""
    first = int(
        machine.run(plan({"a": {"input": SHORT, "generate": {"max_tokens": 1}}}, "a.tokens"))["a.tokens"][0]
    )
    generate = {"max_tokens": 6, "stop_token_ids": [first]}
    return {
        "input": SHORT,
        "generate": generate,
        "read": {"x": {"at": "resid_post.1", "pos": GENERATED} | read},
    }


def test_generated_positions_that_never_came_are_left_out(machine):
    found = machine.run(plan({"a": ending_early(machine)}, "a.x", "a.tokens"))
    assert (found["a.x"].shape, found["a.tokens"].shape) == ((0, 64), (1,))
    for reduce in (
        {"unembed": {"topk": 3}},
        {"unembed": {"vocabulary": True}},
        {"project": packed(64)},
        "norm",
    ):
        found = machine.run(plan({"a": ending_early(machine, reduce=reduce)}, "a.x"))
        assert all(array.shape[0] == 0 for array in found.values())


def test_what_cannot_be_made_of_none_of_them_is_said_by_name(machine):
    with pytest.raises(PlanFailed, match="ended before") as refused:
        machine.run(plan({"a": ending_early(machine, reduce="mean")}, "a.x"))
    assert refused.value.param == "runs.a.read.x"
    change = write("resid_post.1", "swap", pos=GENERATED, value={"run": "a"})
    other = {"input": SHORT, "generate": {"max_tokens": 6}, "write": [change]}
    with pytest.raises(PlanFailed) as refused:
        machine.run(plan({"a": ending_early(machine), "b": other}, "b.tokens"))
    assert refused.value.param == "runs.b.write.0.value"


def test_a_weight_on_a_key_that_is_not_seen_brings_nothing_of_it(machine):
    """Slots behind a row may hold what another project has left there."""
    change = [write("attn_probs.1", "set", value=1.0)]
    content = plan(
        {"a": {"input": SHORT, "write": change, "read": {"z": {"at": "z.1"}, "p": {"at": "attn_probs.1"}}}},
        "a.z",
        "a.p",
    )
    first = machine.run(content)
    assert not np.triu(first["a.p"].transpose(1, 0, 2), 1).any()
    for token in range(40, 60):
        # Somebody else's prompts, on the pages that will be used again.
        machine.run(
            plan({"a": {"input": {"token_ids": [token] * 90}, "read": {"x": {"at": "resid_post.2"}}}}, "a.x")
        )
    np.testing.assert_array_equal(machine.run(content)["a.z"], first["a.z"])


def test_a_run_that_waits_for_one_that_could_begin_in_its_middle_is_answered(machine):
    runs = {
        "b": {
            "input": OTHER,
            "write": [write("resid_post.1", "zero", pos=[5])],
            "read": {"x": {"at": "resid_post.2", "reduce": "mean"}},
        },
        "a": {"input": OTHER, "read": {"y": {"at": "resid_post.2", "reduce": {"project": "b.x"}}}},
    }
    assert machine.run(plan(runs, "a.y"))["a.y"].shape == (14,)


def test_the_same_value_may_be_wanted_whole_and_in_part(machine):
    run = {"input": CLEAN, "read": {"x": lens("resid_post.1", topk=2)}}
    found = machine.run(plan({"a": run}, "a.x", "a.x.ids"))
    assert found.keys() == {"a.x.ids", "a.x.logprobs"}
    assert machine.prepare(plan({"a": run}, "a.x", "a.x.ids")).sizes.returned == 16


def test_the_largest_plan_is_prepared_in_seconds(machine):
    read = {f"r{index}": {"at": "resid_post.0", "pos": {"match": "a"}, "unit": [0]} for index in range(64)}
    change = [write("resid_pre.1", "swap", pos="last", value={"run": "first"}) for _ in range(64)]
    run = {"input": "a " * 40, "read": read, "write": change}
    runs = {"first": {"input": "a " * 40}} | {f"a{index}": run for index in range(255)}
    began = time.process_time()
    task = machine.prepare(plan(runs, "a0.r0"))
    assert time.process_time() - began < MOST_SECONDS
    assert task.sizes.kept < MAX_BYTES


def test_what_is_kept_over_many_runs_is_what_was_admitted(machine):
    read = {f"r{index}": {"at": "mlp_act.*"} for index in range(10)}
    tokens = MAX_MODEL_LEN
    runs = {f"a{index}": {"input": {"token_ids": [index + 5] * tokens}, "read": read} for index in range(16)}
    task = machine.prepare(plan(runs, "a0.r0"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    machine.run(plan(runs, "a0.r0"))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown <= 1.5 * task.sizes.kept + (64 << 20)
