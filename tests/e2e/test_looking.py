"""Looking inside from Python on the real model: experiments beside the same by hand, and the tutorial."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attributed import plainly_attributed
from tests.documents import ROOT, blocks
from transom import AsyncClient, Client
from transom.errors import InvalidRequest

pytestmark = pytest.mark.e2e

CLEAN = "When John and Mary went to the shop, John gave a bag to"
CORRUPT = "When John and Mary went to the shop, Mary gave a bag to"
NAMES = (" Mary", " John")
PAGE = ROOT / "docs" / "tutorial" / "inside.md"


@pytest.fixture
def client(server, key):
    with Client(server.url, key, timeout=300) as client:
        yield client


@pytest.fixture
def model(client):
    return client.model()


def test_the_tutorial_works_as_it_stands(server, key, monkeypatch, capsys):
    monkeypatch.setenv("TRANSOM_BASE_URL", server.url)
    monkeypatch.setenv("TRANSOM_API_KEY", key)
    scope: dict = {}
    said = []
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile(block.text, block.name, "exec"), scope)
            said.append(capsys.readouterr().out)
    assert said[0].startswith("('layer', 'pos', 'unit') (30, 1, 576)")
    assert "29 [' Paris'" in said[2]
    clean, other, patched = (float(line.split()[1]) for line in said[3].splitlines())
    assert other < 0 < patched <= clean
    assert "Paris" in said[-1]
    assert "Tokyo" in said[-1]


def test_a_patching_is_what_single_patches_give(model):
    found = model.activation_patching(CLEAN, CORRUPT, NAMES, pos=[9, 13])
    tokens = [model.token(name) for name in NAMES]
    clean, corrupt = (model.trace(text).logits(tokens) for text in (CLEAN, CORRUPT))
    one = corrupt.patch("resid_post.20", pos=9, source=clean)
    by_hand = model.run(clean=clean, corrupt=corrupt, one=one)
    logits = {run: by_hand[f"{run}.logits"].at(pos=0) for run in ("clean", "corrupt", "one")}
    expected = {run: float(each.at(token=0) - each.at(token=1)) for run, each in logits.items()}
    assert (found.clean, found.corrupt) == (expected["clean"], expected["corrupt"])
    assert float(found.logit_diff.at(layer=20, pos=0)) == expected["one"]
    assert found.logit_diff.labels["pos"] == (" Mary", " to")
    assert float(found.restored.at(layer=-1, pos=-1)) == 1


def test_more_patches_than_a_sweep_has_cells_are_several_plans(model, monkeypatch):
    from transom.client.interp import patching

    whole = model.activation_patching(CLEAN, CORRUPT, NAMES, at="embeddings", over=["pos"])
    one = model.activation_patching(CLEAN, CORRUPT, NAMES, at="z", over=["layer", "head"], pos=[13])
    monkeypatch.setattr(patching, "MAX_CELLS", 140)
    several = model.activation_patching(CLEAN, CORRUPT, NAMES, at="z", over=["layer", "head"], pos=[13])
    assert (len(one.records), len(several.records)) == (1, 2)
    np.testing.assert_array_equal(several.logit_diff, one.logit_diff)
    assert one.logit_diff.axes == ("layer", "head")
    # The prompts differ at one position, and so in one embedding.
    np.testing.assert_array_equal(np.flatnonzero(np.abs(whole.restored) > 1e-6), [9])


def test_an_ablation_puts_the_mean_of_the_references_in_its_place(model):
    from transom.client import Value

    references = [CORRUPT, "The cat sat on the mat and looked at"]
    found = model.mean_ablate(CLEAN, NAMES, reference=references, at="attn_out_post")
    tokens = [model.token(name) for name in NAMES]
    at = "attn_out_post.23"
    means = [model.trace(text).read(at, name="m", reduce="mean")["m"] for text in references]
    plain = model.trace(CLEAN).logits(tokens)
    by_hand = model.run(plain=plain, without=plain.mean(at, Value.mean_of(means)))
    gap = [
        float(by_hand[f"{run}.logits"].at(token=0) - by_hand[f"{run}.logits"].at(token=1))
        for run in ("without", "plain")
    ]
    assert float(found.at(layer=23)) == pytest.approx(gap[0] - gap[1], abs=1e-5)
    assert found.axes == ("layer",)
    assert int(found.data.argmin()) == 23


def test_an_attribution_of_heads_adds_gradient_times_difference_up(model):
    from transom.client import logit_diff

    found = model.attribution_patching(CLEAN, CORRUPT, NAMES, at="z", pos=[13])
    tokens = [model.token(name) for name in NAMES]
    clean, corrupt = model.trace(CLEAN).read("z.23", pos=13), model.trace(CORRUPT).read("z.23", pos=13)
    corrupt = corrupt.grad("z.23", of=logit_diff(*tokens), name="g", pos=13)
    by_hand = model.run(clean=clean, corrupt=corrupt)
    product = np.asarray(by_hand["g"]) * (by_hand["clean.z_23"] - by_hand["corrupt.z_23"]).data
    assert found.axes == ("layer", "pos", "head")
    np.testing.assert_allclose(found.at(layer=23, pos=0), product.sum(-1)[0], atol=1e-3)


def test_prompts_of_two_lengths_are_not_patched(model):
    with pytest.raises(InvalidRequest, match="14 and 15 tokens"):
        model.activation_patching(CLEAN, CORRUPT + " the", NAMES)


def test_an_answer_is_one_token(model):
    with pytest.raises(InvalidRequest, match=r"'Supercalifragilistic' is \d+ tokens"):
        model.direct_logit_attribution(CLEAN, ("Supercalifragilistic", " John"))


def test_the_plan_of_a_trace_is_explained_as_it_stands(client, model):
    explained = client.explain(model.trace(CLEAN).read("resid_post.*", pos=-1).plan())
    assert [(value.name, value.shape) for value in explained.values] == [("trace.resid_post", (30, 1, 576))]
    assert explained.returned_bytes == 30 * 576 * 4


@pytest.mark.anyio
async def test_either_client_gives_the_same(server, key, model):
    waited = model.logit_lens(CLEAN)
    async with AsyncClient(server.url, key, timeout=300) as client:
        other = await client.model()
        awaited = await other.logit_lens(CLEAN)
        traced = await other.trace(CLEAN).read("resid_post.3").run()
    np.testing.assert_array_equal(awaited.logprobs, waited.logprobs)
    assert awaited.tokens.data.tolist() == waited.tokens.data.tolist()
    np.testing.assert_array_equal(
        traced["resid_post_3"], model.trace(CLEAN).read("resid_post.3").run()["resid_post_3"]
    )


def test_a_direct_attribution_is_what_the_weights_say(model, home):
    direct = model.direct_logit_attribution(CLEAN, NAMES)
    tokens = [model.token(name) for name in NAMES]
    ids = list(model.tokens(CLEAN).tokens)
    expected, total = plainly_attributed(home / "models" / model.name, "llama", ids, *tokens, pos=-1)
    np.testing.assert_allclose(direct.data[:-1], expected, atol=1e-3)
    assert float(direct.sum()) == pytest.approx(total, abs=1e-3)
    assert direct.labels["component"][:3] == ("embed", "attn_0", "mlp_0")
    assert abs(float(direct.at(component=-1))) < 1e-3


def test_a_collection_has_what_single_traces_have_and_its_records_replay(model, client, tmp_path):
    prompts = [[number, number + 1, 7] for number in range(100, 112)]
    found = model.collect(prompts, tmp_path, at=["resid_post.*", "z.1"], pos="last", progress=False)
    alone = model.trace(prompts[10]).read("resid_post.*", pos="last").read("z.1", pos="last").run()
    np.testing.assert_array_equal(found.load("resid_post")[10], alone["resid_post"].at(pos=0))
    np.testing.assert_array_equal(found.load("z_1")[10], alone["z_1"].at(pos=0))
    assert found.load("pos").tolist() == [2] * len(prompts)
    assert client.replay(found.index.shards[-1].record).level == "EXACT"
