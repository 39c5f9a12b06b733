"""What is told of a plan before it runs is what comes of it, and what it takes at most."""

from __future__ import annotations

import pytest
import torch

from tests.engine.drive import load_tiny
from tests.internals.plans import Machine
from tests.internals.valid_plans import CLEAN, OTHER, PLANS, plan, write
from tests.tiny import FAMILIES, make_model
from transom.engine.dimensions import measure
from transom.errors import InvalidRequest
from transom.schema.beginnings import MOST_KEPT, find_beginnings
from transom.schema.changes import SiteSpec, WriteSpec
from transom.schema.explanations import Explanation
from transom.schema.generation import SamplingParams
from transom.schema.plan import Plan
from transom.schema.program import RunSpec
from transom.services.tracing.explaining import explanation_of

RUNS_TO_ITS_END = sorted(PLANS.keys() - {"generating"})


@pytest.fixture(scope="module")
def machine(tiny_root, tmp_path_factory) -> Machine:
    # What others have left in pages is not known beforehand.
    return Machine(tiny_root("llama"), tmp_path_factory.mktemp("spool"), prefix_caching=False)


def explained(machine: Machine, content) -> Explanation:
    return explanation_of(Plan.model_validate(content), machine.prepare(content), frozenset())


def carried_out(machine: Machine, content):
    program = machine.program(content)
    before = machine.engine.stats().layer_rows
    machine.engine.submit_program(program)
    traced = machine.finish(program)[program.trace_id]
    values = machine.values(program, traced)
    return traced, values, machine.engine.stats().layer_rows - before


@pytest.mark.parametrize("name", RUNS_TO_ITS_END)
def test_a_plan_gives_and_takes_what_was_told(machine, name):
    found = explained(machine, PLANS[name])
    traced, values, rows = carried_out(machine, PLANS[name])
    told = {each.name: (each.dtype, each.shape, each.axes) for each in found.values}
    assert told == {each.name: (each.dtype, each.shape, each.axes) for each in traced.tensors}
    assert {name: str(array.dtype) for name, array in values.items()} == {
        each.name: each.dtype for each in found.values
    }
    assert found.returned_bytes == sum(array.nbytes for array in values.values())
    assert found.rows.computed == rows
    used = machine.prepare(PLANS[name]).used(traced, 0.5)
    assert used.tokens == found.charged.tokens
    assert used.internals_bytes == found.charged.internals_bytes


def test_a_plan_that_may_end_early_gives_and_takes_no_more_than_was_told(machine):
    found = explained(machine, PLANS["generating"])
    traced, values, rows = carried_out(machine, PLANS["generating"])
    assert {each.name for each in found.values} == values.keys()
    assert sum(array.nbytes for array in values.values()) <= found.returned_bytes
    assert rows <= found.rows.computed
    used = machine.prepare(PLANS["generating"]).used(traced, 0.1)
    assert used.tokens <= found.charged.tokens
    assert used.released_rank <= 1e6 * found.charged.released_rank


def test_a_sweep_says_what_it_shares(machine):
    found = explained(machine, PLANS["swept"])
    assert (found.runs, found.cells, found.sequences, found.layers) == (3, 9, 11, 3)
    length = len(CLEAN["token_ids"])
    assert found.rows.alone == 3 * 11 * length
    (shared,) = found.shared
    # Cells of layer 0 have nothing below them; the others begin at layers 1 and 2, at positions 0, 4 and 13.
    assert (shared.run, shared.begin, shared.layers, shared.position) == ("plain", 6, (1, 2), 0)
    begun = [(3 - layer) * (length - at) for layer in (1, 2) for at in (0, 4, length - 1)]
    assert shared.saved == 6 * 3 * length - sum(begun)
    assert found.rows.computed == found.rows.alone - shared.saved
    assert found.memory.shared == shared.bytes == 4 * length * (2 * 64 + 3 * 2 * 2 * 16)


def test_what_cannot_be_kept_is_not_shared():
    still = SamplingParams(seed=0, max_tokens=0)
    plain = RunSpec(name="plain", token_ids=(1, 2, 3), sampling=still)
    cell = changed_within(plain)
    assert find_beginnings((plain, cell), width=64, cached=64).of.keys() == {"cell"}
    assert find_beginnings((plain, cell), width=64, cached=MOST_KEPT).of == {}


def changed_within(plain: RunSpec) -> RunSpec:
    change = WriteSpec(site=SiteSpec(point="resid_post", layer=1, positions=(1,)), op="zero")
    return RunSpec(name="cell", token_ids=plain.token_ids, sampling=plain.sampling, writes=(change,))


def test_scopes_are_named_and_those_that_lack(machine):
    content = PLANS["swept"]
    held = frozenset({"internals:read"})
    found = explanation_of(Plan.model_validate(content), machine.prepare(content), held)
    assert found.scopes == ("internals:read", "internals:write", "model:logprobs")
    assert found.missing_scopes == ("internals:write", "model:logprobs")


def test_points_are_told_by_their_canonical_names(machine):
    run = {
        "input": CLEAN,
        "read": {"x": {"at": "blocks.1.hook_resid_post"}},
        "write": [write("blocks.0.hook_mlp_out", "zero")],
    }
    grad = {"of": {"logprob": 5}, "wrt": {"g": {"at": "blocks.1.attn.hook_z"}}}
    found = explained(machine, plan({"a": run, "b": {"input": OTHER, "grad": grad}}, "a.x", "b.g"))
    assert found.points == {"a.x": "resid_post.1", "a.write.0": "mlp_out_post.0", "b.g": "z.1"}


def test_operations_are_two_for_each_weight_and_key(machine):
    found = explained(machine, plan({"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.1"}}}}, "a.x"))
    # Of tiny llama: q and o 64 x 64, k and v 64 x 32, three of 64 x 128.
    weights = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    pairs = 14 * 15 // 2
    assert found.operations.forward == 2 * (14 * weights + 3 * pairs * 4 * 32)
    assert found.operations.total == found.operations.forward
    assert found.memory.gradients == found.memory.copy_of_model == 0


def test_a_gradient_counts_three_forwards_and_the_model_once_more(machine):
    grad = {"of": {"logprob": 5}, "wrt": {"g": {"at": "resid_post.1"}}}
    run = {"input": CLEAN, "grad": grad}
    found = explained(machine, plan({"a": run}, "a.g"))
    assert found.rows.gradients == 3 * found.rows.computed
    assert found.operations.gradients == pytest.approx(3 * found.operations.forward)
    assert found.memory.copy_of_model == 4 * sum(p.numel() for p in make_model("llama").parameters())
    whole = plan({"a": {"input": CLEAN, "grad": grad | {"mode": {"integrated": 4}}}}, "a.g")
    assert explained(machine, whole).rows.gradients == (1 + 3 * 4) * found.rows.computed


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_of_a_forward_is_as_large_as_was_told(family):
    model = make_model(family)
    model.set_attn_implementation("eager")
    model.requires_grad_(requires_grad=False)
    graph = measure(model).graph
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = tensor
        return tensor

    model.get_input_embeddings().register_forward_hook(lambda _m, _a, out: out.detach().requires_grad_())
    ids = torch.arange(10, 87)[None]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor([76])).logits
        torch.log_softmax(logits, -1)[..., 5].sum()
    held = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert held == pytest.approx(graph.held(77), rel=1e-3)
    assert held <= graph.held(77)


def test_gradients_beyond_their_memory_are_refused_with_how_long_a_prompt_would_fit(tiny_root, tmp_path):
    machine = Machine(tiny_root("llama"), tmp_path, gradient_bytes=2 << 20)
    grad = {"of": {"logprob": 5}, "wrt": {"g": {"at": "resid_post.*", "pos": "last"}}}

    def asking(tokens):
        runs = {f"r{index}": {"input": {"token_ids": [9] * tokens}, "grad": grad} for index in range(5)}
        runs["short"] = {"input": {"token_ids": [9, 9]}}
        return plan(runs, "r0.g")

    with pytest.raises(InvalidRequest, match=r"enough for \d+ tokens") as refused:
        machine.prepare(asking(95))
    assert (refused.value.reason, refused.value.param) == ("plan_too_large", "runs.r0.grad")
    fits = int(refused.value.message.split("enough for ")[1].split()[0])
    # Runs are differentiated one after the other: their number does not matter.
    machine.prepare(asking(fits))
    with pytest.raises(InvalidRequest):
        machine.prepare(asking(fits + 1))


def test_a_bfloat16_deployment_tells_the_graph_of_float32(tiny_root):
    half, full = (load_tiny(tiny_root("llama"), dtype=dtype).dimensions for dtype in ("bfloat16", "float32"))
    assert half.graph.held(50) >= full.graph.held(50)
    assert (half.layers, half.weights, half.cached) == (full.layers, full.weights, full.cached)
