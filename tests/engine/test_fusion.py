"""Which modules are replaced, and which are not although they look alike."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, Ministral3Config, Ministral3ForCausalLM

from tests.engine.drive import load_tiny
from transom.errors import ModelRefused

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2", "gemma3"])
def test_every_layer_is_replaced_as_a_whole(family, tiny_root):
    loaded = load_tiny(tiny_root(family))
    layers = len(loaded.engine._runner._attention.specs)
    assert loaded.profile["fusion"] == f"{layers + 1} modules/v3"  # and the last norm


def ministral(root, beta):
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "llama_4_scaling_beta": beta,
    }
    config = Ministral3Config(**SMALL, max_position_embeddings=256, rope_parameters=rope)
    Ministral3ForCausalLM(config).save_pretrained(root)
    return load_tiny(root).profile["fusion"]


def test_an_attention_that_treats_late_positions_otherwise_is_not_replaced(tmp_path):
    assert ministral(tmp_path / "plain", 0.0) == "3 modules/v3"
    # Two MLPs, two norms in each layer, and the last norm.
    assert ministral(tmp_path / "scaled", 0.5) == "7 modules/v3"


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_an_embedding_that_depends_on_the_batch_is_kept_where_it_does_not(kind, tmp_path):
    """Beyond its original length it would be rescaled by whoever is longest in the batch."""
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = LlamaConfig(**SMALL, max_position_embeddings=256, rope_parameters=rope)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert load_tiny(tmp_path).max_model_len == 64
    with pytest.raises(ModelRefused, match="beyond the 64"):
        load_tiny(tmp_path, max_model_len=65)


@pytest.mark.parametrize(
    ("family", "stacked"),
    [("llama", True), ("mistral", True), ("qwen3", True), ("gemma2", True), ("gemma3", False)],
)
def test_layers_of_one_kind_are_one_call(family, stacked, tiny_root):
    """Gemma 3 rotates one kind of layer otherwise than the other."""
    body = load_tiny(tiny_root(family)).engine._runner._model._body
    assert (len(body.layers) == 1) is stacked
