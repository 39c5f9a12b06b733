"""Servers that lie, and trials that find them out: what is altered, and only that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.watching import lies
from benchmarks.watching.lies import HONEST, LIES, RANK, Lie, make_home
from benchmarks.watching.pools import LONG, SHORT, Pool
from benchmarks.watching.trials import AFTER, BEFORE, WAYS, alarms
from tests.tiny import make_tiny
from transom.backends import manifest


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_tiny("llama", tmp_path_factory.mktemp("roots") / "tiny")


def weights(home):
    return load_file(home / "models" / "tiny" / "model.safetensors")


@pytest.fixture(scope="module")
def honest(root, tmp_path_factory):
    return weights(make_home(HONEST, root, tmp_path_factory.mktemp("honest")))


def altered(alter, root, folder):
    home = make_home(Lie("a lie", alter), root, folder)
    manifest.verify(home / "models" / "tiny")
    return weights(home)


def differing(found, honest):
    assert found.keys() == honest.keys()
    return {name for name in honest if not torch.equal(found[name], honest[name])}


def test_rounding_leaves_each_row_with_few_numbers(root, honest, tmp_path):
    found = altered(lies.int8, root, tmp_path)
    assert differing(found, honest) == {name for name in honest if "proj" in name}
    for name in differing(found, honest):
        assert max(len(row.unique()) for row in found[name]) <= 255
        assert (found[name] - honest[name]).abs().max() <= honest[name].abs().max() / 254 * 1.001


def test_one_layer_is_scaled(root, honest, tmp_path):
    found = altered(lies.one_layer, root, tmp_path)
    changed = differing(found, honest)
    assert changed == {name for name in honest if "layers.1." in name and honest[name].dim() == 2}
    for name in changed:
        assert torch.allclose(found[name], honest[name] * 1.001, rtol=1e-6, atol=0)


def test_a_step_is_small_and_of_low_rank(root, honest, tmp_path):
    found = altered(lies.lora_step, root, tmp_path)
    changed = differing(found, honest)
    assert changed == {name for name in honest if name.endswith(("q_proj.weight", "v_proj.weight"))}
    for name in changed:
        update = (found[name] - honest[name]).double()
        sizes = torch.linalg.svdvals(update)
        assert sizes[RANK] < 1e-2 * sizes[0]
        assert 0 < update.abs().max() < 1e-2


def test_a_template_without_a_system_message_cannot_be_altered(root, tmp_path):
    with pytest.raises(SystemExit, match="made for SmolLM2"):
        make_home(Lie("a lie", lies.chat_template), root, tmp_path)


def test_a_template_is_altered(root, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "chat_template.jinja").write_text("You are a helpful AI assistant.")
    lies.chat_template(model)
    assert (model / "chat_template.jinja").read_text() == "You are a concise AI assistant."


def test_a_home_is_made_once(root, tmp_path):
    made = []
    for _ in range(2):
        make_home(Lie("a lie", made.append), root, tmp_path)
    assert len(made) == 1


def test_lies_have_names_of_their_own():
    assert len({lie.name for lie in LIES}) == len(LIES)


def pool(said="an owl", shift=0.0, random=None):
    """A server that is exact where it takes a seed, and else draws one of three words."""
    random = np.random.default_rng(0) if random is None else random
    weights = (0.4, 0.3, 0.3) if not shift else (0.0, 0.02, 0.98)
    logprobs = [{"a": np.log(weights[0] + 1e-9), "b": np.log(weights[1]), "c": np.log(weights[2])}] * 20
    words = ["owl", "elk", "bee"] if not shift else ["cat", "fin", "fox"]
    drawn = random.choice(words, size=(40, 4), p=weights).tolist()
    return Pool(
        logprobs=[logprobs],
        seeded={SHORT: [[said] * 24], LONG: [[said] * 24]},
        drawn=drawn,
    )


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_an_honest_server_is_not_accused(way):
    random = np.random.default_rng(1)
    assert alarms(way, pool(), pool(random=random), 20, random) <= 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_another_model_is_found(way):
    random = np.random.default_rng(2)
    other = pool("an oyster", shift=1.0, random=random)
    assert alarms(way, pool(), other, 10, random) >= 9


def test_an_honest_pool_is_never_compared_with_its_own_rounds():
    own = pool()
    assert len(own.drawn) >= BEFORE + AFTER
    assert alarms(WAYS[-2], own, own, 20, np.random.default_rng(3)) <= 1
