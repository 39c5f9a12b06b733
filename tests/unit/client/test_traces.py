"""The builder: what it writes down is a plan of the grammar, and says what the code says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from client_standin import BASE, Server, models, reply

from transom import AsyncClient, Client
from transom.client import LanguageModel, Trace, Value, kl, logit_diff, logprob
from transom.errors import InvalidRequest
from transom.schema.plan import Plan

MODEL = LanguageModel(Client(BASE, ""), "smol")


def checked(plan):
    """A plan, once the grammar has taken it."""
    Plan.model_validate(json.loads(json.dumps(plan)))
    return plan


def test_a_trace_reads_what_it_says_by_point_and_layer():
    trace = MODEL.trace("Hello").read("resid_post.*", pos=-1).read("blocks.5.hook_resid_post", reduce="norm")
    assert checked(trace.plan()) == {
        "model": "smol",
        "runs": {
            "trace": {
                "input": "Hello",
                "read": {
                    "resid_post": {"at": "resid_post.*", "pos": -1},
                    "resid_post_5": {"at": "blocks.5.hook_resid_post", "reduce": "norm"},
                },
            }
        },
        "return": ["trace.resid_post", "trace.resid_post_5"],
    }


def test_a_trace_is_never_changed():
    trace = MODEL.trace("Hello").read("z.0")
    trace.zero("z.0").read("z.1")
    assert list(trace.plan()["runs"]["trace"]) == ["input", "read"]
    assert trace.outputs == ("z_0",)


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("Hi", "Hi"),
        ([1, 2], {"token_ids": [1, 2]}),
        (np.array([1, 2]), {"token_ids": [1, 2]}),
        ([{"role": "user", "content": "Hi"}], {"messages": [{"role": "user", "content": "Hi"}]}),
        ({"prompt": "Hi", "add_special_tokens": False}, {"prompt": "Hi", "add_special_tokens": False}),
    ],
)
def test_an_input_is_a_text_ids_messages_or_the_plans_own_form(given, spelled):
    assert checked(MODEL.trace(given).read("z.0").plan())["runs"]["trace"]["input"] == spelled


def test_a_patch_brings_its_source_along():
    clean = MODEL.trace("Paris")
    patched = MODEL.trace("Rome").patch("resid_post.5", pos=3, source=clean).logits([7, 8])
    plan = checked(patched.plan())
    assert plan["runs"] == {
        "run_1": {"input": "Paris"},
        "trace": {
            "input": "Rome",
            "write": [{"at": "resid_post.5", "pos": 3, "op": "swap", "value": {"run": "run_1"}}],
            "read": {"logits": {"at": "lm_head", "pos": "last", "unit": [7, 8]}},
        },
    }
    assert plan["return"] == ["trace.logits"]


def test_several_traces_are_one_plan_and_a_trace_is_one_run_however_often_it_is_named():
    clean = MODEL.trace("Paris").logits([7, 8])
    one, two = (MODEL.trace("Rome").patch(f"z.{n}", source=clean).logits([7, 8]) for n in (1, 2))
    plan = checked(MODEL.plan(clean=clean, one=one, two=two, seed=4))
    assert sorted(plan["runs"]) == ["clean", "one", "two"]
    assert plan["return"] == ["clean.logits", "one.logits", "two.logits"]
    assert plan["seed"] == 4


def test_arithmetic_on_what_traces_read_is_derived_on_the_server():
    love, hate = (MODEL.trace(word).read("resid_post.10", name="v", pos=-1) for word in ("Love", "Hate"))
    direction = (love["v"] - hate["v"]).normalize()
    steered = MODEL.trace("I").add("resid_post.10", direction, scale=4.0).generate(20, temperature=1.0)
    plan = checked(MODEL.plan(steered=steered, direction=direction))
    assert plan["derive"] == {
        "direction": {"normalize": "derive.value_1"},
        "value_1": {"sub": ["run_1.v", "run_2.v"]},
    }
    (write,) = plan["runs"]["steered"]["write"]
    assert write == {"at": "resid_post.10", "op": "add", "value": "derive.direction", "scale": 4.0}
    assert plan["return"] == ["steered.tokens", "derive.direction"]


def test_every_derivation_of_plans_can_be_written_down():
    trace = MODEL.trace("x").read("z.0", name="v").read("z.1", name="w")
    v, w = trace["v"], trace["w"]
    values = {
        "a": v + w, "b": -v / 2, "c": v.mean("pos"), "d": v.dot(w), "e": v.topk(3),
        "f": Value.stack([v, w]), "g": Value.mean_of([v, w]), "h": np.ones(4) - v, "i": v,
    }  # fmt: skip
    plan = checked(MODEL.plan(**values))
    assert plan["return"] == [f"derive.{name}" for name in values]
    operations = {operation for each in plan["derive"].values() for operation in each}
    assert operations >= {"add", "scale", "mean", "dot", "topk", "stack", "sub"}


def test_numbers_at_hand_travel_in_the_plan():
    direction = np.arange(4, dtype=np.float64)
    plan = MODEL.trace("x").project_out("resid_post.3", direction).project("z.1", direction).plan()
    value = Plan.model_validate(plan).runs["trace"].write[0].value
    np.testing.assert_array_equal(value.array(), direction.astype(np.float32))


def test_every_operation_of_writes_has_a_method():
    trace, other = MODEL.trace("x").read("z.0"), MODEL.trace("y").read("z.0", reduce="mean")
    one = np.ones(3)
    made = (
        trace.set("z.0", 1.0)
        .add("z.0", one)
        .zero("z.0", head=3)
        .mean("z.0", other["z_0"])
        .noise("z.0", 0.1)
        .scale_along("z.0", one, 2.0)
        .project_out("z.0", one)
        .clamp("z.0", one, 1.0)
        .patch("z.0", source=other)
    )
    (write,) = [run["write"] for run in checked(made.plan())["runs"].values() if "write" in run]
    assert [each["op"] for each in write] == [
        "set", "add", "zero", "mean", "noise", "scale_along", "project_out", "clamp", "swap",
    ]  # fmt: skip


@pytest.mark.parametrize("of", [logit_diff(1, 2), logprob(3, pos=-2), kl(MODEL.trace("y"))])
@pytest.mark.parametrize(
    "mode", ["grad", "grad_x_input", {"grad_x_delta": MODEL.trace("y")}, {"integrated": 4}]
)
def test_gradients_have_a_metric_and_a_mode(of, mode):
    plan = checked(MODEL.trace("x").grad("z.1", of=of, mode=mode).grad("z.2", of=of, mode=mode).plan())
    assert plan["return"] == ["trace.grad_z_1", "trace.grad_z_2"]


def test_gradients_of_two_metrics_are_two_traces():
    trace = MODEL.trace("x").grad("z.1", of=logprob(1))
    with pytest.raises(InvalidRequest) as caught:
        trace.grad("z.2", of=logprob(2))
    assert caught.value.param == "of"


def test_a_sweep_is_the_plans():
    source = MODEL.trace("y")
    swept = MODEL.trace("x").patch("z.{layer}", source=source, pos="{pos}", head=["{head}"]).logits([1, 2])
    plan = checked(swept.sweep(layer="all", pos=[0, 1], head=range(3)).plan())
    assert plan["sweep"] == {"layer": "all", "pos": [0, 1], "head": [0, 1, 2]}


def test_a_plan_sweeps_one_trace():
    one = MODEL.trace("x").zero("z.{layer}").logits([1, 2]).sweep(layer="all")
    with pytest.raises(InvalidRequest) as caught:
        MODEL.plan(one=one, two=one.zero("z.0"))
    assert caught.value.param == "sweep"


@pytest.mark.parametrize("at", ["resid_pots.3", "resid_post", "blocks.1.hook_mlp_in"])
def test_a_point_that_is_none_is_refused_before_anything_is_sent(at):
    with pytest.raises(InvalidRequest) as caught:
        MODEL.trace("x").read(at)
    assert caught.value.param == "at"


def test_a_name_is_given_once():
    with pytest.raises(InvalidRequest, match="has a z_0 already"):
        MODEL.trace("x").read("z.0").read("z.0", pos=-1)


def test_what_is_not_read_is_no_value():
    with pytest.raises(KeyError, match="reads no v; it has z_0"):
        MODEL.trace("x").read("z.0")["v"]


def test_a_plan_that_returns_nothing_is_refused():
    with pytest.raises(InvalidRequest) as caught:
        MODEL.trace("x").zero("z.0").plan()
    assert caught.value.param == "return"


@pytest.mark.anyio
async def test_without_a_name_the_only_model_is_meant(kind):
    import httpx2

    server = Server({"GET /v1/models": reply(models("smol"))})
    client = kind(BASE, "", transport=httpx2.MockTransport(server))
    model = client.model() if isinstance(client, Client) else await client.model()
    assert model.name == "smol"
    assert isinstance(model.trace("x"), Trace)
    assert isinstance(client, Client | AsyncClient)
