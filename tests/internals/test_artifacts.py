"""Artifacts in plans: directions, weights of sparse autoencoders, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.internals.plans import Machine
from tests.internals.valid_plans import CLEAN, OTHER, packed, plan, write
from transom.errors import InvalidRequest
from transom.internals.projection import BLOCK, PIECE, Projection
from transom.internals.values import Value

WIDTH = 64
ONE, SEVERAL = "a" * 64, "b" * 64
FEATURES = 300


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    machine = Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"))
    draw = np.random.default_rng(5)
    machine.artifacts = {
        ONE: {"v": draw.normal(size=WIDTH).astype(np.float32)},
        SEVERAL: {
            "enc": draw.normal(size=(FEATURES, WIDTH)).astype(np.float32),
            "bias": draw.normal(size=FEATURES).astype(np.float32),
            "wide": draw.normal(size=(WIDTH, FEATURES)).astype(np.float32),
        },
    }
    return machine


def read(reduce=None, at="resid_post.1", **more):
    run = {
        "input": CLEAN,
        "read": {"x": {"at": at, **({} if reduce is None else {"reduce": reduce}), **more}},
    }
    return plan({"a": run}, "a.x")


def refusal(machine, content) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        machine.prepare(content)
    return caught.value


def test_a_direction_gives_the_bits_that_it_gives_inline(machine):
    direction = {"inline": machine.artifacts[ONE]["v"].tolist()}
    by_name = machine.run(read({"project": f"artifact:{ONE}"}))["a.x"]
    assert (by_name == machine.run(read({"project": direction}))["a.x"]).all()
    assert (by_name == machine.run(read({"project": f"artifact:{ONE}#v"}))["a.x"]).all()


def test_a_direction_steers_as_it_does_inline(machine):
    def steered(value):
        run = {
            "input": OTHER,
            "write": [write("resid_post.0", "add", value=value, scale=2.0)],
            "read": {"x": {"at": "resid_post.*"}},
        }
        return machine.run(plan({"a": run}, "a.x"))["a.x"]

    inline = {"inline": machine.artifacts[ONE]["v"].tolist()}
    assert (steered(f"artifact:{ONE}") == steered(inline)).all()


def test_features_of_an_encoder_are_what_the_matrix_gives(machine):
    whole = machine.run(read())["a.x"]
    found = machine.run(read({"project": f"artifact:{SEVERAL}#enc", "matrix": True}))["a.x"]
    assert found.shape == (14, FEATURES)
    expected = whole.astype(np.float64) @ machine.artifacts[SEVERAL]["enc"].astype(np.float64).T
    assert np.abs(found - expected).max() <= 1e-5


def test_each_direction_of_a_matrix_gives_the_bits_that_it_gives_alone(machine):
    found = machine.run(read({"project": f"artifact:{SEVERAL}#enc", "matrix": True}))["a.x"]
    for index in (0, 1, FEATURES - 1):
        alone = {"inline": machine.artifacts[SEVERAL]["enc"][index].tolist()}
        assert (found[:, index] == machine.run(read({"project": alone}))["a.x"]).all()


def test_positions_alone_give_the_bits_that_they_give_together(machine):
    encoder = {"project": f"artifact:{SEVERAL}#enc", "matrix": True}
    together = machine.run(read(encoder))["a.x"]
    assert (machine.run(read(encoder, pos=[3, 9]))["a.x"] == together[[3, 9]]).all()


def test_a_matrix_beside_other_plans_gives_the_bits_that_it_gives_alone(machine):
    content = read({"project": f"artifact:{SEVERAL}#enc", "matrix": True}, at="resid_post.*")
    alone = machine.run(content)["a.x"]
    programs = [machine.program(content, project) for project in ("mine", "other", "third")]
    for program in programs:
        machine.engine.submit_program(program)
    ends = machine.finish(*programs)
    for program in programs:
        assert (machine.values(program, ends[program.trace_id])["a.x"] == alone).all()


@pytest.mark.parametrize(
    ("at", "more", "shape", "axes"),
    [
        ("resid_post.*", {}, (3, 14, FEATURES), ("layer", "pos", "direction")),
        ("resid_post.1", {"pos": "last"}, (1, FEATURES), ("pos", "direction")),
    ],
)
def test_the_last_axis_is_that_of_the_directions(machine, at, more, shape, axes):
    content = read({"project": f"artifact:{SEVERAL}#enc", "matrix": True}, at=at, **more)
    program = machine.program(content)
    machine.engine.submit_program(program)
    traced = machine.finish(program)[program.trace_id]
    assert [(tensor.shape, tensor.axes) for tensor in traced.tensors] == [(shape, axes)]
    assert machine.prepare(content).sizes.returned == 4 * np.prod(shape)
    machine.values(program, traced)


def test_heads_stay_in_front_of_directions(machine):
    width = machine.run(read(at="z.1"))["a.x"].shape
    found = machine.run(read({"project": packed(5, width[-1]), "matrix": True}, at="z.1"))["a.x"]
    assert found.shape == (*width[:-1], 5)


def test_what_is_derived_may_be_a_matrix_and_be_derived_from(machine):
    """The most active features behind their biases, of directions that another run has."""
    runs = {
        "s": {"input": OTHER, "read": {"x": {"at": "resid_post.1", "pos": [0, 1]}}},
        "a": {
            "input": CLEAN,
            "read": {
                "f": {"at": "resid_post.1", "reduce": {"project": f"artifact:{SEVERAL}#enc", "matrix": True}},
                "g": {"at": "resid_post.1", "reduce": {"project": "derive.twice", "matrix": True}},
            },
        },
    }
    derive = {
        "best": {"topk": "derive.pre", "k": 4},
        "pre": {"add": ["a.f", f"artifact:{SEVERAL}#bias"]},
        "twice": {"scale": ["s.x", 2]},
        "mean": {"mean": "a.g", "axis": "direction"},
    }
    found = machine.run(plan(runs, "derive.best", "a.f", "a.g", "derive.mean", derive=derive))
    pre = found["a.f"] + machine.artifacts[SEVERAL]["bias"]
    assert (found["derive.best.ids"][:, 0] == pre.argmax(axis=-1)).all()
    assert found["a.g"].shape == (14, 2)
    assert found["derive.mean"].shape == (14,)


def test_a_sweep_over_a_matrix_has_its_axes_in_front(machine):
    run = {
        "input": OTHER,
        "write": [write("resid_post.{layer}", "add", value=f"artifact:{ONE}")],
        "read": {
            "f": {"at": "final_norm", "pos": "last", "reduce": {"project": packed(7, WIDTH), "matrix": True}}
        },
    }
    found = machine.run(plan({"a": run}, "a.f", sweep={"layer": "all"}))
    assert found["a.f"].shape == (3, 1, 7)


def test_a_tensor_that_the_cells_of_a_sweep_share_is_there_once(machine):
    change = write("resid_post.{layer}", "add", pos="{pos}", value=packed(WIDTH))
    run = {"input": OTHER, "write": [change], "read": {"x": {"at": "final_norm", "pos": "last"}}}
    task = machine.prepare(plan({"a": run}, "a.x", sweep={"layer": "all", "pos": "all"}))
    assert len(task.resolved.tensors) == 1


def test_a_gradient_along_a_direction_is_that_along_the_same_inline(machine):
    def graded(value):
        grad = {
            "of": {"dot": [{"at": "resid_post.2", "pos": "last"}, value]},
            "wrt": {"g": {"at": "resid_post.0"}},
        }
        return machine.run(plan({"a": {"input": CLEAN, "grad": grad}}, "a.g"))["a.g"]

    inline = {"inline": machine.artifacts[ONE]["v"].tolist()}
    assert (graded(f"artifact:{ONE}") == graded(inline)).all()


MISSING = [
    (f"artifact:{'0' * 64}", "has no artifact"),
    (f"artifact:{SEVERAL}", "is several tensors"),
    (f"artifact:{SEVERAL}#dec", "has no tensor dec"),
]


@pytest.mark.parametrize(("ref", "what"), MISSING)
def test_what_is_not_there_is_refused_by_the_field(machine, ref, what):
    error = refusal(machine, read({"project": ref}))
    assert (error.reason, error.param) == ("unknown_artifact", "runs.a.read.x.reduce.project")
    assert what in error.message
    run = {
        "input": CLEAN,
        "write": [write("resid_post.0", "add", value=ref)],
        "read": {"x": {"at": "final_norm"}},
    }
    assert refusal(machine, plan({"a": run}, "a.x")).param == "runs.a.write.0.value"
    derived = read() | {"derive": {"d": {"sub": ["a.x", ref]}}, "return": ["derive.d"]}
    assert refusal(machine, derived).param == "derive.d.sub.1"


@pytest.mark.parametrize("tensor", ["bias", "wide"])
def test_a_matrix_of_another_width_is_refused_with_the_remedy(machine, tensor):
    error = refusal(machine, read({"project": f"artifact:{SEVERAL}#{tensor}", "matrix": True}))
    assert error.param == "runs.a.read.x.reduce.project"
    assert f"[directions, {WIDTH}]" in error.message


def test_artifacts_count_among_what_a_plan_keeps(machine):
    machine.artifacts["c" * 64] = {"huge": np.broadcast_to(np.float32(0), (1 << 23, WIDTH))}
    error = refusal(machine, read({"project": f"artifact:{'c' * 64}", "matrix": True}))
    assert error.reason == "plan_too_large"


def test_features_count_among_what_a_plan_keeps(machine):
    machine.artifacts["d" * 64] = {"large": np.broadcast_to(np.float32(0), (1 << 20, WIDTH))}
    content = read({"project": f"artifact:{'d' * 64}", "matrix": True})
    runs = {f"a{index}": content["runs"]["a"] for index in range(16)}
    assert refusal(machine, plan(runs, "a0.x")).reason == "plan_too_large"


def test_a_plan_whose_file_is_gone_fails_alone(machine):
    """As when whoever sent it leaves before the engine has begun."""
    program = machine.program(read({"project": f"artifact:{ONE}"}))
    (machine.spool / f"{program.trace_id}.tensors").unlink()
    other = machine.program(read())
    machine.engine.submit_program(program)
    machine.engine.submit_program(other)
    ends = machine.finish(program, other)
    assert "No such file" in ends[program.trace_id].error
    machine.values(other, ends[other.trace_id])


def test_a_large_matrix_is_gone_through_in_pieces():
    width = 1000
    rows = Value(np.ones((3, width), np.float32), ("pos", "unit"))
    matrix = Value(np.ones((5 * BLOCK // width, width), np.float32), ("", ""))
    projection, pieces = Projection(rows, matrix), 1
    while not projection.work():
        pieces += 1
    assert pieces > 3 * matrix.array.size // PIECE
    assert (projection.value.array == width).all()


def test_no_rows_have_no_features():
    projection = Projection(
        Value(np.ones((0, 8), np.float32), ("pos", "unit")), Value(np.ones((5, 8), np.float32), ("", ""))
    )
    assert projection.work()
    assert projection.value.array.shape == (0, 5)
