"""How the parts of a plan hang together: references, cycles, the order of runs, and sweeps."""

from __future__ import annotations

import time

import pytest
from plan_strategies import ARTIFACT, small_plan
from pydantic import ValidationError

from transom.schema.plan import Plan
from transom.schema.plans.graph import MAX_FINDINGS
from transom.schema.plans.refs import Artifact, Derived, RunOutput


def findings(content):
    with pytest.raises(ValidationError) as refused:
        Plan.model_validate(content)
    return [(error["loc"], error["msg"]) for error in refused.value.errors()]


def finding(content):
    (found,) = findings(content)
    return found


def patched(**changes):
    content = small_plan()
    content["runs"]["patched"] |= changes
    return content


def adding(ref, *, op="add"):
    content = small_plan()
    content["runs"]["patched"]["write"][3] = {"at": "mlp_act.0", "op": op, "value": ref}
    return content


VALUE = ("runs", "patched", "write", 3, "value")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("clan.resid", "names the run clan, which the plan has not; did you mean clean?"),
        ("nobody.resid", "there is: clean, patched, slope"),
        ("clean.resd", "names clean.resd, which the plan has not; did you mean resid?"),
        ("clean.tokens", "names clean.tokens, which the plan has not"),
        ("slope.grad", "there is: e"),
        ("derive.chang", "names derive.chang, which the plan has not; did you mean change?"),
        ("clean.resid.ids", "names clean.resid.ids, which the plan has not; there is: none"),
        ("clean.lens.values", "names clean.lens.values, which the plan has not"),
        ("derive.most.logprobs", "which the plan has not"),
        ("clean.lens", "is two tensors, ids and logprobs; name one by adding .logprobs"),
        ("clean.lens.ids", "integers"),
        ("derive.most", "is two tensors, ids and values; name one by adding .values"),
        ("derive.most.ids", "integers"),
    ],
)
def test_a_reference_to_what_there_is_not_or_does_not_fit_is_refused(ref, message):
    loc, found = finding(adding(ref))
    assert loc == VALUE
    assert message in found


@pytest.mark.parametrize(
    "ref", ["clean.resid", "clean.lens.logprobs", "derive.change", "derive.most.values", ARTIFACT, "slope.e"]
)
def test_a_reference_to_what_there_is_is_taken(ref):
    assert Plan.model_validate(adding(ref))


def test_generated_tokens_are_returned_but_not_computed_with():
    content = small_plan()
    content["derive"]["d"] = {"add": ["patched.logprobs", "patched.tokens"]}
    loc, found = finding(content)
    assert loc == ("derive", "d", "add", 1)
    assert "integers" in found
    del content["derive"]["d"]
    assert Plan.model_validate(content)


def test_logprobs_are_there_where_they_are_asked_for():
    content = small_plan()
    content["return"] = ["patched.logprobs"]
    assert Plan.model_validate(content)
    del content["runs"]["patched"]["generate"]["logprobs"]
    loc, _ = finding(content)
    assert loc == ("return", 0)


def test_names_that_only_a_generating_run_offers_are_free_in_others():
    content = small_plan()
    content["runs"]["clean"]["read"]["tokens"] = {"at": "resid_post.0"}
    content["derive"] = {"d": {"normalize": "clean.tokens"}}
    content["return"] = ["derive.d"]
    assert Plan.model_validate(content)


@pytest.mark.parametrize("ref", ["clean.resid", "slope.e"])
def test_the_mean_that_is_written_has_no_positions(ref):
    loc, found = finding(adding(ref, op="mean"))
    assert loc == VALUE
    assert '"reduce": "mean"' in found


@pytest.mark.parametrize("ref", ["clean.middle", "derive.change", ARTIFACT, {"inline": [1.0]}])
def test_a_mean_may_be_written(ref):
    assert Plan.model_validate(adding(ref, op="mean"))


@pytest.mark.parametrize(
    ("path", "value", "loc"),
    [
        (("write", 0, "value"), {"run": "nobody"}, ("write", 0, "value", "run")),
        (("grad", "of"), {"kl": "nobody"}, ("grad", "of", "kl")),
        (("grad", "of"), {"dot": [{"at": "z.1"}, "nobody.x"]}, ("grad", "of", "dot", 1)),
        (("grad", "mode"), {"grad_x_delta": "nobody"}, ("grad", "mode", "grad_x_delta")),
        (("grad", "mode"), {"integrated": 2, "baseline": "nobody"}, ("grad", "mode", "baseline")),
        (("read", "p", "reduce"), {"project": "nobody.x"}, ("read", "p", "reduce", "project")),
        (("read", "p", "reduce"), {"project": "nobody.x.y"}, ("read", "p", "reduce", "project")),
    ],
)
def test_every_kind_of_reference_is_found(path, value, loc):
    content = small_plan()
    run = content["runs"]["slope"]
    run["write"] = [{"at": "z.1", "op": "swap", "value": {"run": "clean"}}]
    run["read"] = {"p": {"at": "resid_pre.1"}}
    Plan.model_validate(content)
    *way, last = path
    for part in way:
        run = run[part]
    run[last] = value
    found, message = finding(content)
    assert found == ("runs", "slope", *loc)
    assert "names the run nobody" in message


def test_what_is_returned_is_there():
    content = small_plan()
    content["return"] = ["clean.resid", "clean.nothing", "derive.nothing", "nobody.resid", "clean.lens.ids"]
    assert [loc for loc, _ in findings(content)] == [("return", 1), ("return", 2), ("return", 3)]


def test_a_run_that_takes_its_own_value_closes_a_cycle():
    content = small_plan()
    content["runs"]["clean"]["write"] = [{"at": "z.1", "op": "set", "value": "clean.resid"}]
    loc, found = finding(content)
    assert loc == ("runs", "clean", "write", 0, "value")
    assert "clean -> clean" in found


@pytest.mark.parametrize(
    ("other", "loc"),
    [
        ({"write": [{"at": "z.1", "op": "swap", "value": {"run": "b"}}]}, ("write", 0, "value", "run")),
        ({"read": {"x": {"at": "z.1", "reduce": {"project": "b.y"}}}}, ("read", "x", "reduce", "project")),
        ({"grad": {"of": {"kl": "b"}, "wrt": {"g": {"at": "z.1"}}}}, ("grad", "of", "kl")),
        (
            {
                "grad": {
                    "of": {"logprob": 1},
                    "wrt": {"g": {"at": "z.1"}},
                    "mode": {"integrated": 2, "baseline": "b"},
                }
            },
            ("grad", "mode", "baseline"),
        ),
    ],
)
def test_two_runs_that_need_each_other_close_a_cycle(other, loc):
    a = {"input": "x", "read": {"x": {"at": "z.1"}}} | other
    b = {"input": "x", "read": {"y": {"at": "z.1"}}}
    b["write"] = [{"at": "z.1", "op": "swap", "value": {"run": "a"}}]
    found, message = finding({"model": "m", "runs": {"a": a, "b": b}, "return": ["b.y"]})
    assert found in {("runs", "a", *loc), ("runs", "b", "write", 0, "value", "run")}
    assert "a -> b -> a" in message or "b -> a -> b" in message


def test_a_cycle_by_way_of_derived_values_names_them():
    content = small_plan()
    content["runs"]["clean"]["write"] = [{"at": "z.1", "op": "set", "value": "derive.change"}]
    (_, message), *others = findings(content)
    assert not others
    assert "derive.change" in message
    assert "clean" in message


def test_a_cycle_of_derived_values_alone_is_found_however_long():
    content = small_plan()
    content["derive"] = {f"d{i}": {"normalize": f"derive.d{(i + 1) % 256}"} for i in range(256)}
    content["return"] = ["clean.resid"]
    loc, message = finding(content)
    assert loc[0] == "derive"
    assert "..." in message
    assert len(message) < 300


def test_runs_come_after_those_whose_values_they_take():
    content = small_plan()
    content["runs"] = dict(reversed(content["runs"].items()))
    plan = Plan.model_validate(content)
    assert set(plan.order()) == {"clean", "patched", "slope"}
    assert plan.order()[0] == "clean"
    steps = plan.steps()
    assert steps.index("derive.change") > steps.index("slope")
    assert steps.index("derive.most") > steps.index("derive.change")


def test_a_plan_tells_what_it_takes():
    content = adding(ARTIFACT + "#W_dec")
    plan = Plan.model_validate(content)
    assert plan.artifacts() == [(VALUE, Artifact("0123456789abcdef" * 4, "W_dec"))]
    assert plan.tensors() == []
    ((loc, tensor),) = Plan.model_validate(small_plan()).tensors()
    assert loc == VALUE
    assert tensor.array().tolist() == [[1.0, 2.5]]
    targets = {use.target for _, use in plan.parts.uses}
    assert {RunOutput("clean", "middle"), Derived("change")} <= targets


def test_findings_end_somewhere():
    content = small_plan()
    content["derive"] = {"d": {"add": ["nobody.x"] * 256}}
    content["return"] = ["derive.d"]
    assert len(findings(content)) == MAX_FINDINGS


def test_the_largest_plan_is_checked_in_reasonable_time():
    read, write = {"at": "resid_post.3"}, {"at": "resid_pre.3", "op": "add"}
    runs = {
        f"r{i}": {
            "input": "x",
            "read": {f"a{j}": read for j in range(64)},
            "write": [write | {"value": f"r{i - 1}.a{j}"} for j in range(64)] if i else [],
        }
        for i in range(256)
    }
    derive = {f"d{i}": {"add": [f"derive.d{i - 1}" if i else "r0.a0"] * 256} for i in range(256)}
    begun = time.process_time()
    plan = Plan.model_validate({"model": "m", "runs": runs, "derive": derive, "return": ["derive.d255"]})
    assert plan.order() == list(runs)
    assert time.process_time() - begun < 10


def test_a_placeholder_without_a_sweep_is_refused():
    content = small_plan()
    del content["sweep"]
    site = ("runs", "patched", "write", 0)
    assert [loc for loc, _ in findings(content)] == [(*site, "at"), (*site, "pos")]
    assert all("add sweep" in message for _, message in findings(content))


def test_a_placeholder_without_its_axis_is_refused():
    content = small_plan()
    content["sweep"] = {"layer": [1]}
    loc, message = finding(content)
    assert loc == ("runs", "patched", "write", 0, "pos")
    assert "add pos to sweep" in message


def test_an_axis_without_a_placeholder_is_refused():
    content = small_plan()
    content["sweep"]["head"] = "all"
    loc, message = finding(content)
    assert loc == ("sweep", "head")
    assert '"head": ["{head}"]' in message


@pytest.mark.parametrize(
    ("field", "site"),
    [
        ("at", {"at": "blocks.{layer}.hook_resid_pre"}),
        ("pos", {"at": "z.1", "pos": "{pos}"}),
    ],
)
def test_a_placeholder_in_a_second_run_is_refused(field, site):
    content = small_plan()
    content["runs"]["slope"]["read"] = {"r": site}
    loc, message = finding(content)
    assert loc == ("runs", "slope", "read", "r", field)
    assert "a sweep repeats one: patched" in message


@pytest.mark.parametrize("where", ["read", "wrt", "dot"])
def test_placeholders_may_stand_at_any_site_of_the_swept_run(where):
    site = {"at": "z.{layer}", "head": ["{head}"], "pos": "{pos}"}
    read = {"r": {"at": "resid_post.0"} if where != "read" else site}
    grad = {"of": {"logprob": 1}, "wrt": {"g": site if where == "wrt" else {"at": "z.1"}}}
    if where == "dot":
        grad["of"] = {"dot": [site, ARTIFACT]}
    content = small_plan()
    content["runs"] = {"a": {"input": "x"}, "b": {"input": "x", "read": read, "grad": grad}}
    content |= {"derive": {}, "return": ["b.g"], "sweep": {"layer": "all", "pos": [0, -1], "head": [3]}}
    plan = Plan.model_validate(content)
    assert plan.swept_run == "b"
    assert list(plan.sweep.axes) == ["layer", "pos", "head"]
    assert plan.sweep.least_cells == 2


@pytest.mark.parametrize(
    ("run", "loc"),
    [
        ({"write": [{"at": "z.1", "op": "swap", "value": {"run": "patched"}}]}, ("write", 0, "value", "run")),
        ({"grad": {"of": {"kl": "patched"}, "wrt": {"e": {"at": "z.1"}}}}, ("grad", "of", "kl")),
    ],
)
def test_no_other_run_is_compared_with_a_swept_one(run, loc):
    content = small_plan()
    content["runs"]["slope"] |= run
    found, message = finding(content)
    assert found == ("runs", "slope", *loc)
    assert "repeated by the sweep" in message


def test_a_plan_without_a_sweep_has_no_swept_run():
    content = patched(write=[])
    del content["sweep"]
    assert Plan.model_validate(content).swept_run is None
