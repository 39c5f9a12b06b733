"""Programs in the engine, on a tiny model: order, values, company, failure, and what is left."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.engine.drive import PlainModel, ask
from tests.internals.plans import Machine
from tests.internals.valid_plans import CLEAN, GENERATED, OTHER, PLANS, SHORT, lens, packed, plan, write
from transom.engine import tracing
from transom.errors import PlanFailed
from transom.internals.values import Value
from transom.schema.changes import TensorData

FAILING = plan(
    {"a": {"input": CLEAN, "write": [write("resid_pre.1", "set", value=3e38)], "read": {"x": {"at": "q.1"}}}},
    "a.x",
)


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    return Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def plain(tiny_root):
    return PlainModel(tiny_root("llama"))


def read(machine, given, **reads):
    run = {"input": given, "read": reads}
    return {
        name[2:]: values
        for name, values in machine.run(plan({"a": run}, *(f"a.{key}" for key in reads))).items()
    }


class TestOrder:
    def test_runs_wait_for_the_values_that_they_need(self, machine, monkeypatch):
        begun = []
        compiled = tracing.compile_run

        def noted(run, *rest):
            begun.append(run.name)
            return compiled(run, *rest)

        monkeypatch.setattr(tracing, "compile_run", noted)
        swap = write("resid_post.1", "swap", pos=[2], value={"run": "third"})
        runs = {
            "last": {"input": SHORT, "write": [swap], "read": {"x": {"at": "resid_post.2"}}},
            "third": {
                "input": OTHER,
                "write": [write("resid_post.0", "add", value="derive.d")],
                "read": {"x": {"at": "resid_post.2"}},
            },
            "second": {
                "input": OTHER,
                "read": {
                    "x": {"at": "resid_post.0", "reduce": {"project": "first.m"}},
                    "m": {"at": "resid_post.0", "reduce": "mean"},
                },
            },
            "first": {"input": CLEAN, "read": {"m": {"at": "resid_post.0", "reduce": "mean"}}},
        }
        derive = {"d": {"add": ["first.m", "second.m"]}}
        machine.run(plan(runs, "last.x", derive=derive))
        assert begun == ["first", "second", "third", "last"]

    def test_a_swap_puts_in_what_the_other_run_has(self, machine):
        swap = write("resid_post.1", "swap", pos=[4, 9], value={"run": "a"})
        site = {"at": "resid_post.1"}
        runs = {
            "a": {"input": CLEAN, "read": {"x": site}},
            "b": {"input": OTHER, "read": {"x": site}},
            "c": {"input": OTHER, "write": [swap], "read": {"x": site}},
        }
        found = machine.run(plan(runs, "a.x", "b.x", "c.x"))
        for position in range(14):
            source = found["a.x"] if position in (4, 9) else found["b.x"]
            np.testing.assert_array_equal(found["c.x"][position], source[position])


class TestReductions:
    def test_mean_norm_and_projection_are_numpys(self, machine):
        site, direction = {"at": "resid_post.*"}, np.linspace(-1, 1, 64, dtype="<f4")
        found = read(
            machine,
            CLEAN,
            x=site,
            mean=site | {"reduce": "mean"},
            norm=site | {"reduce": "norm"},
            along=site | {"reduce": {"project": packed(64)}},
        )
        wide = found["x"].astype(np.float64)
        np.testing.assert_allclose(found["mean"], wide.mean(1), rtol=1e-6)
        np.testing.assert_allclose(found["norm"], np.linalg.norm(wide, axis=-1), rtol=1e-6)
        np.testing.assert_allclose(found["along"], wide @ direction, rtol=1e-5, atol=1e-5)

    def test_the_last_stream_through_the_lens_is_the_plain_models_distribution(self, machine, plain):
        expected = plain.logprobs(CLEAN["token_ids"]).numpy()
        found = read(
            machine,
            CLEAN,
            whole=lens("resid_post.2", "all", vocabulary=True),
            best=lens("resid_post.2", "all", topk=5),
            some=lens("resid_post.2", "all", targets=[9, 3]),
            logits={"at": "lm_head", "pos": "all"},
        )
        np.testing.assert_allclose(found["whole"], expected, atol=2e-5)
        np.testing.assert_array_equal(found["some"], found["whole"][:, [9, 3]])
        order = np.argsort(-found["whole"], axis=-1, kind="stable")[:, :5]
        np.testing.assert_array_equal(found["best.ids"], order)
        np.testing.assert_array_equal(found["best.logprobs"], np.take_along_axis(found["whole"], order, -1))
        wide = found["logits"].astype(np.float64)
        shifted = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
        np.testing.assert_allclose(shifted, expected, atol=2e-5)


class TestDerived:
    def test_each_operation_is_numpys(self, machine):
        content = PLANS["derived"]
        more = content | {"return": [*content["return"], "a.x", "b.x", "b.h", "a.l"]}
        found = machine.run(more)
        a, b = found["a.x"].astype(np.float64), found["b.x"].astype(np.float64)
        line = np.linspace(-1, 1, 64, dtype="<f4")
        steer = (a - b).mean(0).mean(0)
        expected = {
            "gap": a - b,
            "late": (a - b).mean(0),
            "steer": steer,
            "unit": steer / np.linalg.norm(steer),
            "sum": a + b + line,
            "twice": 2 * (a + b + line),
            "pile": np.stack([a, b]),
            "mid": (a + b) / 2,
            "all": found["b.h"].astype(np.float64).mean(),
            "dots": a @ steer,
            "likely": -found["a.l.logprobs"],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[f"derive.{name}"], values, rtol=1e-4, atol=1e-5, err_msg=name)
            assert found[f"derive.{name}"].dtype == np.float32
        order = np.argsort(-found["derive.twice"], axis=-1, kind="stable")[..., :3]
        np.testing.assert_array_equal(found["derive.best.ids"], order)

    def test_a_number_too_large_for_float32_is_infinite(self, machine):
        run = {"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.1"}}}}
        found = machine.run(plan(run, "derive.d", derive={"d": {"scale": ["a.x", 3e38]}}))["derive.d"]
        assert np.isinf(found).any()

    def test_large_values_are_worked_on_piece_by_piece(self):
        left = np.random.default_rng(1).standard_normal((3, 700, 512)).astype(np.float32)
        right = np.random.default_rng(2).standard_normal(512).astype(np.float32)
        whole = Value(left, ("layer", "pos", "unit"))
        found = whole.project(Value(right, ("unit",)))
        assert (found.array.shape, found.axes) == ((3, 700), ("layer", "pos"))
        np.testing.assert_array_equal(
            found.array, (left.astype(np.float64) * right).sum(-1).astype(np.float32)
        )
        np.testing.assert_allclose(whole.norm().array, np.linalg.norm(left, axis=-1), rtol=1e-6)


class TestGenerated:
    def test_steps_are_read_as_the_same_tokens_are_in_a_prompt(self, machine):
        run = {
            "input": SHORT,
            "generate": {"max_tokens": 6, "ignore_eos": True},
            "read": {"x": {"at": "resid_post.*", "pos": GENERATED}, "all": {"at": "z.1"}},
        }
        found = machine.run(plan({"a": run}, "a.x", "a.all", "a.tokens"))
        tokens = found["a.tokens"].tolist()
        assert found["a.x"].shape == (3, 5, 64)
        whole = {"token_ids": [*SHORT["token_ids"], *tokens[:-1]]}
        again = read(machine, whole, x={"at": "resid_post.*"}, all={"at": "z.1"})
        np.testing.assert_array_equal(found["a.x"], again["x"][:, 3:])
        np.testing.assert_array_equal(found["a.all"], again["all"])

    def test_what_is_read_ends_where_the_run_does(self, machine):
        free = plan({"a": {"input": SHORT, "generate": {"max_tokens": 6, "ignore_eos": True}}}, "a.tokens")
        tokens = machine.run(free)["a.tokens"].tolist()
        stop = next(token for token in tokens[1:] if token != tokens[0])
        count = tokens.index(stop) + 1
        generate = {"max_tokens": 6, "ignore_eos": True, "stop_token_ids": [stop]}
        run = {
            "input": SHORT,
            "generate": generate,
            "read": {"x": {"at": "q.1", "pos": GENERATED}, "y": {"at": "q.1"}},
        }
        found = machine.run(plan({"a": run}, "a.x", "a.y", "a.tokens"))
        assert len(found["a.tokens"]) == count
        assert (len(found["a.x"]), len(found["a.y"])) == (count - 1, 3 + count - 1)


class TestCompany:
    def test_programs_and_a_request_beside_each_other_have_the_bits_that_they_have_alone(self, machine):
        names = ("written", "generating", "swept", "derived")
        alone = {name: machine.run(PLANS[name]) for name in names}
        machine.engine.submit(request("r0"))
        tokens = [token for output in outputs(machine) for token in output.tokens]
        programs = {name: machine.program(PLANS[name], project=name) for name in names}
        broken = machine.program(FAILING, project="broken")
        for program in (*programs.values(), broken):
            machine.engine.submit_program(program)
        machine.engine.submit(request("r1"))
        beside, ends = [], {}
        while not machine.engine.idle or len(ends) < len(programs) + 1:
            if machine.engine.idle:
                ends |= {traced.trace_id: traced for traced in machine.news()}
                continue
            found, ended = machine.engine.step()
            beside += [token for output in found if output.sequence_id == "r1" for token in output.tokens]
            ends |= {traced.trace_id: traced for traced in ended}
        assert beside == tokens
        assert ends[broken.trace_id].param == "runs.a.write.0"
        for name, program in programs.items():
            again = machine.values(program, ends[program.trace_id])
            for key, values in alone[name].items():
                np.testing.assert_array_equal(again[key], values, err_msg=key)

    def test_two_projects_with_the_same_plan_have_the_same_values_and_files_of_their_own(self, machine):
        programs = [machine.program(PLANS["written"], project=project) for project in ("mine", "theirs")]
        for program in programs:
            machine.engine.submit_program(program)
        ends = machine.finish(*programs)
        assert programs[0].file != programs[1].file
        one, other = (machine.values(program, ends[program.trace_id]) for program in programs)
        assert one.keys() == other.keys()
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key])


def request(name):
    return ask(name, range(40, 60), max_tokens=8, temperature=1.0, logprobs=3, seed=4, project="other")


def outputs(machine):
    found = []
    while not machine.engine.idle:
        found += machine.engine.step()[0]
    return found


class TestFailure:
    def test_it_is_told_at_once_where_nothing_else_runs(self, machine):
        change = write("resid_post.1", "set", value=packed(64))
        run = {"input": CLEAN, "write": [change], "read": {"x": {"at": "q.1"}}}
        # As if the value had come out otherwise than was reckoned.
        narrow = TensorData(shape=(3,), data=bytes(12))
        program = replace(machine.program(plan({"a": run}, "a.x")), tensors={"inline0": narrow})
        machine.engine.submit_program(program)
        assert not machine.engine.idle
        (traced,) = machine.news()
        assert traced.param == "runs.a.write.0.value"
        assert machine.engine.idle

    def test_an_excessive_write_is_said_by_name(self, machine):
        with pytest.raises(PlanFailed, match="larger than 1e") as failed:
            machine.run(FAILING)
        assert failed.value.param == "runs.a.write.0"

    def test_a_surprise_fails_its_own_program_only(self, machine, monkeypatch):
        def surprised(*_):
            raise ZeroDivisionError("nobody expected this")

        good = machine.program(PLANS["everywhere"])
        bad = machine.program(PLANS["derived"])
        monkeypatch.setattr(tracing, "derive", surprised)
        machine.engine.submit_program(good)
        machine.engine.submit_program(bad)
        ends = machine.finish(good, bad)
        assert "nobody expected this" in ends[bad.trace_id].error
        assert machine.values(good, ends[good.trace_id])


class TestAbort:
    @pytest.mark.parametrize("steps", range(0, 12, 2))
    @pytest.mark.parametrize("name", PLANS)
    def test_nothing_is_left_of_it(self, machine, name, steps):
        program = machine.program(PLANS[name])
        engine = machine.engine
        engine.submit_program(program)
        trace = weakref.ref(next(iter(engine._traces.values())))
        for _ in range(steps):
            if not engine.idle:
                engine.step()
        engine.abort(program.trace_id)
        while not engine.idle or engine.is_busy_elsewhere:
            assert machine.news() == []
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
        assert not engine._traces
        assert not engine._by_sequence
        gc.collect()
        assert trace() is None
        assert not list(machine.spool.iterdir())

    def test_of_a_name_that_nobody_has_is_no_error(self, machine):
        machine.engine.abort("rec_nobody")


def test_many_programs_leave_no_values_behind(machine):
    for _ in range(30):
        program = machine.program(PLANS["written"])
        machine.engine.submit_program(program)
        (traced,) = machine.finish(program).values()
        assert load_file(program.file).keys() == {tensor.name for tensor in traced.tensors}
        machine.values(program, traced)
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is tracing._Trace]


def test_gradients_that_nobody_waits_for_end_at_the_next_forward(machine):
    grad = {"of": {"logprob": 7}, "wrt": {"g": {"at": "mlp_out.0"}}, "mode": {"integrated": 64}}
    program = machine.program(plan({"a": {"input": CLEAN, "grad": grad}}, "a.g"))
    machine.engine.submit_program(program)
    machine.engine.abort(program.trace_id)
    while machine.engine.is_busy_elsewhere or not machine.engine.idle:
        assert machine.news() == []
    assert not machine.engine._gradients._found
    assert not machine.engine._gradients._unwanted
