"""Gradients are those of a plain model in float64; attribution and integrated gradients add up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engine.drive import load_tiny
from tests.tiny import FAMILIES
from transom.engine.gradients import Differentiator
from transom.engine.places import find_boundaries
from transom.errors import PlanFailed
from transom.internals.board import Where
from transom.internals.values import Value
from transom.schema.changes import SiteSpec
from transom.schema.generation import SamplingParams
from transom.schema.program import GradSpec, MetricSpec, RunSpec, WrtSpec

IDS = tuple(range(20, 33))
EVERY = range(len(IDS))
STILL = SamplingParams(seed=0, max_tokens=0)
DIFFERENCE = MetricSpec(kind="logit_diff", tokens=(5, 9), position=len(IDS) - 1)


@pytest.fixture(scope="module")
def loaded(tiny_root):
    kept = {}

    def get(family):
        if family not in kept:
            places = load_tiny(tiny_root(family)).places
            kept[family] = places, Differentiator(tiny_root(family), places.shapes)
        return kept[family]

    return get


def site(point, layer, positions=EVERY, **more):
    return SiteSpec(point=point, layer=layer, positions=tuple(positions), **more)


def graded(differentiator, metric, wrt, values=None, **mode):
    run = RunSpec(
        name="a", token_ids=IDS, sampling=STILL, grad=GradSpec(metric=metric, wrt=tuple(wrt), **mode)
    )
    return differentiator.gradients(run, values or {})


def reference(root, where, metric):
    """d metric / d (something added at a place), by torch on the plain model in float64."""
    model = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float64, attn_implementation="eager")
    boundary = find_boundaries(model).found[where]
    added = torch.zeros(1, len(IDS), boundary.width, dtype=torch.float64, requires_grad=True)

    def after(_module, _args, output):
        if isinstance(output, tuple):
            return output[0] + added.view(output[0].shape), *output[1:]
        return output + added.view(output.shape)

    def before(_module, args, kwargs):
        if args:
            return (args[0] + added.view(args[0].shape), *args[1:]), kwargs
        given = kwargs["hidden_states"]
        return args, kwargs | {"hidden_states": given + added.view(given.shape)}

    module = model.get_submodule(boundary.module)
    if boundary.is_input:
        module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        module.register_forward_hook(after)
    logits = model(torch.tensor([IDS])).logits[0, metric.position]
    if metric.kind == "logit_diff":
        number = logits[metric.tokens[0]] - logits[metric.tokens[1]]
    else:
        number = torch.log_softmax(logits, -1)[metric.tokens[0]]
    number.backward()
    return added.grad[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_a_plain_model(family, loaded, tiny_root):
    places, differentiator = loaded(family)
    wheres = [where for where in places.differentiable if where.layer in (-1, 1)]
    assert len(wheres) >= 9
    wrt = [WrtSpec(name=where.point, sites=(site(where.point, where.layer),)) for where in wheres]
    found = graded(differentiator, DIFFERENCE, wrt)
    for where in wheres:
        expected = reference(tiny_root(family), where, DIFFERENCE)
        values = found[f"a.{where.point}"].array.reshape(expected.shape)
        assert np.abs(values - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3), where


def test_a_chosen_part_is_that_part_of_the_whole(loaded):
    _, differentiator = loaded("llama")
    whole = WrtSpec(name="whole", sites=(site("z", 1),))
    part = WrtSpec(name="part", sites=(site("z", 1, (3, 7), heads=(2,), units=(0, 5)),))
    layers = WrtSpec(
        name="layers", sites=tuple(site("resid_post", layer) for layer in range(3)), layered=True
    )
    logprob = MetricSpec(kind="logprob", tokens=(5,), position=len(IDS) - 1)
    found = graded(differentiator, logprob, [whole, part, layers])
    assert found["a.part"].axes == ("pos", "head", "unit")
    np.testing.assert_array_equal(found["a.part"].array, found["a.whole"].array[[3, 7]][:, [2]][..., [0, 5]])
    assert found["a.layers"].array.shape == (3, len(IDS), 64)
    assert found["a.layers"].axes == ("layer", "pos", "unit")
    again = graded(differentiator, logprob, [whole, part, layers])
    np.testing.assert_array_equal(again["a.layers"].array, found["a.layers"].array)


def test_integrated_gradients_add_up_to_the_difference(loaded, tiny_root):
    _, differentiator = loaded("llama")
    model = AutoModelForCausalLM.from_pretrained(tiny_root("llama"), attn_implementation="eager")
    layer = model.model.layers[1]

    def seen_and_said(ids, instead=None):
        kept = []
        hook = layer.register_forward_hook(lambda _m, _a, output: kept.append(output) or instead)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        hook.remove()
        return kept[0], float(logits[5] - logits[9])

    baseline, _ = seen_and_said(IDS[::-1])
    whole, without = seen_and_said(IDS)[1], seen_and_said(IDS, baseline)[1]
    wrt = [WrtSpec(name="w", sites=(site("resid_post", 1),), others=("b._0",))]
    values = {"b._0": Value(baseline[0].numpy(), ("pos", "unit"))}
    found = graded(differentiator, DIFFERENCE, wrt, values, mode="integrated", steps=64)
    assert abs(whole - without) > 0.1
    assert float(found["a.w"].array.sum()) == pytest.approx(whole - without, rel=1e-2)


def test_gradient_times_delta_predicts_a_small_patch(loaded, tiny_root):
    _, differentiator = loaded("llama")
    place = site("resid_post", 1, (4,))
    inputs = graded(differentiator, DIFFERENCE, [WrtSpec(name="w", sites=(place,))], mode="grad_x_input")
    plain = graded(differentiator, DIFFERENCE, [WrtSpec(name="w", sites=(place,))])
    own = inputs["a.w"].array / plain["a.w"].array
    other = Value((own * 1.001).astype(np.float32), ("pos", "unit"))
    wrt = [WrtSpec(name="w", sites=(place,), others=("b._0",))]
    found = graded(differentiator, DIFFERENCE, wrt, {"b._0": other}, mode="grad_x_delta")
    assert found["a.w"].array == pytest.approx(inputs["a.w"].array * 0.001, abs=1e-5)


def test_divergence_from_oneself_is_flat(loaded, tiny_root):
    _, differentiator = loaded("llama")
    model = AutoModelForCausalLM.from_pretrained(tiny_root("llama"), attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, -1:].numpy()
    metric = MetricSpec(kind="kl", value="b._0", position=len(IDS) - 1)
    wrt = [WrtSpec(name="w", sites=(site("resid_post", 1),))]
    flat = graded(differentiator, metric, wrt, {"b._0": Value(logits, ("pos", "token"))})
    steep = graded(differentiator, metric, wrt, {"b._0": Value(logits[:, ::-1].copy(), ("pos", "token"))})
    assert np.abs(flat["a.w"].array).max() < 1e-5 < np.abs(steep["a.w"].array).max()


def test_a_dot_product_is_differentiated_to_its_other_side(loaded):
    _, differentiator = loaded("llama")
    direction = np.arange(64, dtype=np.float32)
    metric = MetricSpec(kind="dot", site=site("resid_post", 1, (6,)), value="v", position=len(IDS) - 1)
    wrt = [WrtSpec(name="w", sites=(site("resid_post", 1),))]
    found = graded(differentiator, metric, wrt, {"v": Value(direction, ("unit",))})["a.w"].array
    np.testing.assert_array_equal(found[6], direction)
    assert not found[[*range(6), *range(7, len(IDS))]].any()


def test_a_value_that_does_not_fit_is_refused(loaded):
    _, differentiator = loaded("llama")
    wrt = [WrtSpec(name="w", sites=(site("resid_post", 1),), others=("v",))]
    values = {"v": Value(np.ones(7, np.float32), ("unit",))}
    with pytest.raises(PlanFailed, match="does not fit"):
        graded(differentiator, DIFFERENCE, wrt, values, mode="grad_x_delta")


def test_the_middle_of_the_stream_has_no_gradient_of_its_own(loaded):
    for family in ("llama", "gpt2"):
        places, _ = loaded(family)
        assert Where("resid_mid", 1) not in places.differentiable
        assert Where("attn_out_post", 1) in places.differentiable


def test_no_second_copy_is_made_where_there_is_no_room(tiny_root, loaded, monkeypatch):
    places, _ = loaded("llama")
    monkeypatch.setattr(
        "transom.engine.gradients.psutil.virtual_memory", lambda: SimpleNamespace(available=1 << 10)
    )
    differentiator = Differentiator(tiny_root("llama"), places.shapes)
    with pytest.raises(PlanFailed, match="memory"):
        graded(differentiator, DIFFERENCE, [WrtSpec(name="w", sites=(site("resid_post", 1),))])
