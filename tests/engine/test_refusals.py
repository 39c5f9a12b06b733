"""A model that cannot be served exactly is refused at load, with the reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

from tests.engine.drive import load_tiny
from transom.engine import linear
from transom.errors import ModelRefused


def save(model, root):
    model.save_pretrained(root)
    return root


def test_alibi_attention_is_refused(tmp_path):
    config = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2)
    with pytest.raises(ModelRefused, match="attention interface"):
        load_tiny(save(BloomForCausalLM(config), tmp_path))


def test_a_state_space_model_is_refused(tmp_path):
    config = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
    with pytest.raises(ModelRefused):
        load_tiny(save(MambaForCausalLM(config), tmp_path))


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match="cannot load"):
        load_tiny(tmp_path)


def test_a_context_beyond_the_declared_one_is_refused(tiny_root):
    with pytest.raises(ModelRefused, match="max_model_len"):
        load_tiny(tiny_root("llama"), max_model_len=10**6)


def test_an_unknown_dtype_is_refused(tiny_root):
    with pytest.raises(ModelRefused, match="float16"):
        load_tiny(tiny_root("llama"), dtype="float16")


def test_a_model_whose_numbers_are_not_finite_is_refused(tiny_root, tmp_path):
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(tiny_root("llama"))
    with torch.no_grad():
        broken.model.norm.weight[0] = float("inf")
    with pytest.raises(ModelRefused, match="not finite"):
        load_tiny(save(broken, tmp_path))


def test_an_operator_that_depends_on_the_batch_is_refused(tiny_root, monkeypatch):
    """With torch's products, which choose their summation by the number of rows."""
    weights = {}
    make = linear.Product.__init__

    def keep(self, weight):
        make(self, weight)
        weights[self] = weight

    def multiply(self, rows):
        weight = weights[self]
        return torch.nn.functional.linear(torch.from_numpy(rows), weight.matrix, weight.bias).numpy()

    monkeypatch.setattr(linear.Product, "__init__", keep)
    monkeypatch.setattr(linear.Product, "__call__", multiply)
    with pytest.raises(ModelRefused, match="batch-invariant"):
        load_tiny(tiny_root("llama"))


def test_a_model_that_knows_its_batch_mates_is_refused(tiny_root, monkeypatch):
    """The proof itself, tried with an attention that hears whether it is alone."""
    from transom.engine.stack import Stack

    honest = Stack._heads

    def leak(self, some):
        cache, (scales, *more), *rest = honest(self, some)
        louder = scales * np.float32(1 + 1e-6 * (len(self._paged._rows.tables) > 2))
        return cache, (louder, *more), *rest

    monkeypatch.setattr(Stack, "_heads", leak)
    with pytest.raises(ModelRefused, match="other bits in a batch than alone"):
        load_tiny(tiny_root("llama"))


def test_a_wrong_number_is_refused(tiny_root, monkeypatch):
    """An attention that is right in form, and some percent off, with and without fused modules alike."""
    from transom.engine.attention import LayerSpec

    honest = LayerSpec.shape.fget

    def wrong(self):
        scale, *rest = honest(self)
        return np.float32(1.05 * scale), *rest

    monkeypatch.setattr(LayerSpec, "shape", property(wrong))
    with pytest.raises(ModelRefused, match="differ from the plain model"):
        load_tiny(tiny_root("llama"))


def test_a_sliding_layer_that_does_not_slide_is_refused(tiny_root, tmp_path):
    root = tiny_root("gemma3")
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((root / "config.json").read_text())
    config["layer_types"] = ["chunked_attention"] * len(config["layer_types"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused):
        load_tiny(tmp_path)
