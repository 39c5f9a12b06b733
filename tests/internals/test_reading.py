"""What is read inside each tiny architecture: a plain model's numbers, and the same bits in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engine.drive import ask, collect, load_tiny
from tests.tiny import FAMILIES
from transom.engine.places import find_boundaries, model_points
from transom.errors import PlanFailed
from transom.internals import edits
from transom.internals.board import Where
from transom.internals.taps import Columns, Read, Site, Taps, Write
from transom.schema.module_names import module_point
from transom.schema.points import POINTS
from transom.schema.program import ReadSpec

IDS = list(range(7, 40))
EVERY = range(len(IDS))
GENERATED = 4
FUSED = ("llama", "mistral", "qwen3", "gemma2", "gemma3")


def site(where, shape, positions=EVERY):
    width = shape.width or len(IDS) + GENERATED
    return Site(where, positions, Columns(shape.groups), shape.groups * width), width


def read(where, shape, positions=EVERY):
    where_read, width = site(where, shape, positions)
    return Read(where_read, np.zeros((len(positions), shape.groups, width), np.float32))


@pytest.fixture(scope="module")
def loaded(tiny_root):
    kept = {}
    return lambda family: kept.setdefault(family, load_tiny(tiny_root(family)))


def everything(places):
    return [read(where, shape) for where, shape in places.shapes.items()]


def run(engine, name, taps=None, ids=IDS, **sampling):
    request = ask(name, ids, max_tokens=GENERATED, temperature=0, prompt_logprobs=1, **sampling)
    engine.submit(request, taps=taps)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_modules_path_means_the_point_that_lies_at_its_boundary(family, loaded):
    points = model_points(loaded(family).places)
    paths = {point.name: point.module for point in points if point.module}
    known = {path: module_point(path) for path in paths.values()}
    for path, found in known.items():
        if found is not None:
            assert paths[found[0]] == path
            assert found[1] == ("{layer}" if POINTS[found[0]].layered else None)
    # What is not known by its path is a norm, whose name says too little.
    assert all("norm" in path or "ln_" in path for path, found in known.items() if found is None)
    assert {"embeddings", "resid_post", "attn_out", "mlp_out", "final_norm"} <= paths.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_hooks_on_the_plain_model(family, loaded, tiny_root):
    reads = everything(loaded(family).places)
    run(loaded(family).engine, "read", Taps(reads, []))
    collect(loaded(family).engine)
    expected = hooked(AutoModelForCausalLM.from_pretrained(tiny_root(family), attn_implementation="eager"))
    compared = 0
    for item in reads:
        if item.site.where in expected:
            wanted = expected[item.site.where]
            found = item.values.reshape(wanted.shape)
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), item.site.where
            compared += 1
    assert compared >= 30


def hooked(model):
    """By plain hooks: {place: [positions, width]}."""
    boundaries, seen = find_boundaries(model), {}

    def keep(where):
        def hook(_module, args, *rest):
            # Of a pre-hook the arguments, of a hook the output.
            kwargs, output = (
                (rest[0], None) if len(rest) == 1 and isinstance(rest[0], dict) else ({}, rest[0])
            )
            given = args[0] if args else kwargs.get("hidden_states")
            tensor = given if output is None else output[0] if isinstance(output, tuple) else output
            seen[where] = tensor.detach().reshape(-1, tensor.shape[-1]).numpy().copy()

        return hook

    for where, boundary in boundaries.found.items():
        module = model.get_submodule(boundary.module)
        if boundary.is_input:
            module.register_forward_pre_hook(keep(where), with_kwargs=True)
        else:
            module.register_forward_hook(keep(where))
    with torch.no_grad():
        model(torch.tensor([IDS]), use_cache=False)
    return seen


@pytest.mark.parametrize("family", FUSED)
def test_attention_patterns_are_those_of_the_plain_model(family, loaded, tiny_root):
    engine, places = loaded(family).engine, loaded(family).places
    wheres = [Where("attn_probs", layer) for layer in range(3)]
    reads = [read(where, places.shapes[where]) for where in wheres]
    run(engine, "patterns", Taps(reads, []))
    collect(engine)
    model = AutoModelForCausalLM.from_pretrained(tiny_root(family), attn_implementation="eager")
    with torch.no_grad():
        expected = model(torch.tensor([IDS]), output_attentions=True).attentions
    for item, wanted in zip(reads, expected, strict=True):
        found = item.values[:, :, : len(IDS)].transpose(1, 0, 2)
        assert np.abs(found - wanted[0].numpy()).max() <= 1e-5
        assert not item.values[:, :, len(IDS) :].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_to_be_read_changes_no_bit_and_neither_does_company(family, dtype, tiny_root):
    whole = load_tiny(tiny_root(family), dtype=dtype)
    small = load_tiny(tiny_root(family), dtype=dtype, max_num_batched_tokens=7)
    run(whole.engine, "plain")
    plain = collect(whole.engine)["plain"]
    alone = everything(whole.places)
    run(whole.engine, "read", Taps(alone, []))
    assert collect(whole.engine)["read"].tokens == plain.tokens
    beside, neighbour = everything(small.places), everything(small.places)
    run(small.engine, "neighbour", Taps(neighbour, [disturb(small.places)]), ids=IDS[::-1])
    run(small.engine, "stranger", ids=[*IDS, 5])
    run(small.engine, "read", Taps(beside, []))
    found = collect(small.engine)["read"]
    assert (found.tokens, found.prompt) == (plain.tokens, plain.prompt)
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one.values, other.values, err_msg=str(one.site.where))


def disturb(places, positions=range(2, 9)):
    where = Where("resid_pre", 1)
    return Write(
        site(where, places.shapes[where], positions)[0], edits.add(np.ones((1, 1, 1), np.float32), 9.0)
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2"])
def test_a_write_stays_with_its_own_rows_and_leaves_nothing_in_the_cache(family, loaded):
    engine, places = loaded(family).engine, loaded(family).places
    run(engine, "before")
    run(engine, "written", Taps([], [disturb(places)]))
    first = collect(engine)
    run(engine, "after")
    after = collect(engine)["after"]
    assert (after.tokens, after.prompt) == (first["before"].tokens, first["before"].prompt)
    assert first["written"].prompt != first["before"].prompt
    # Nothing predicts the first token, and the two before the write know nothing of it.
    assert first["written"].prompt[:3] == first["before"].prompt[:3]


def test_an_excessive_write_is_not_done_and_said(loaded):
    engine, places = loaded("llama").engine, loaded("llama").places
    where = Where("resid_mid", 1)
    value = np.full((1, 1, 1), 1e30, np.float32)
    write = Write(site(where, places.shapes[where])[0], edits.replace(value))
    taps = Taps([], [write])
    run(engine, "plain")
    run(engine, "excessive", taps)
    found = collect(engine)
    assert found["excessive"].tokens == found["plain"].tokens
    with pytest.raises(Exception, match="larger than 1e"):
        taps.check("runs.a")


def test_a_point_that_is_nowhere_says_why(loaded):
    points = {point.name: point for point in model_points(loaded("gpt_neox").places)}
    assert "parallel" in points["resid_mid"].reason
    assert points["resid_mid"].layers == ()


def test_a_model_that_nobody_knows_inside_is_served_all_the_same(tiny_root, monkeypatch):
    def unknown(*_args, **_more):
        raise ValueError("no trunk")

    monkeypatch.setattr("transom.engine.places.EagerModel", unknown)
    whole = load_tiny(tiny_root("gpt2"))
    run(whole.engine, "plain")
    assert len(collect(whole.engine)["plain"].tokens) == GENERATED
    points = {point.name: point for point in model_points(whole.places)}
    assert points["final_norm"].layers == (-1,)
    assert "no trunk" in points["resid_post"].reason
    with pytest.raises(PlanFailed, match="final norm"):
        whole.lens.look(ReadSpec(name="x", sites=(), reduce="unembed"), None, "x", None, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_cuda_it_is_read_and_written_as_on_the_processor(family, tiny_root, loaded):
    cuda = load_tiny(tiny_root(family), device="cuda")
    found = {where: read(where, shape) for where, shape in cuda.places.shapes.items()}
    run(cuda.engine, "read", Taps(list(found.values()), [disturb(cuda.places)]))
    tokens = collect(cuda.engine)["read"].tokens
    places = loaded(family).places
    wanted = {where: read(where, places.shapes[where]) for where in found if where in places.shapes}
    assert len(wanted) >= 30
    run(loaded(family).engine, "read", Taps(list(wanted.values()), [disturb(places)]))
    expected = collect(loaded(family).engine)["read"].tokens
    assert [token.token_id for token in tokens] == [token.token_id for token in expected]
    for where, item in wanted.items():
        largest = np.abs(item.values).max()
        assert np.abs(found[where].values.reshape(item.values.shape) - item.values).max() <= 1e-4 * largest, (
            where
        )
