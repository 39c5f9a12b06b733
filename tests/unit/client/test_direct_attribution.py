"""Direct logit attribution of what plain PyTorch gives, beside what plain PyTorch says with all weights."""

from __future__ import annotations

import json

import httpx2
import numpy as np
import pytest
import torch
from client_standin import BASE
from safetensors.numpy import save
from transformers import AutoModelForCausalLM

from tests.attributed import PARTS, plainly_attributed
from transom import Client
from transom.errors import UnsupportedParameter

IDS = [5, 77, 131, 9, 200, 64]
TOKENS = (40, 300)
AXES = {"logits": "pos,token", "attn": "layer,pos,unit", "mlp": "layer,pos,unit"}


class Plain:
    """Answers what direct attribution asks, by hooks and gradients of transformers' own modules."""

    def __init__(self, root, last_layer_norm, kinds):
        self._model = AutoModelForCausalLM.from_pretrained(root, attn_implementation="eager")
        self._norm, self._kinds = last_layer_norm, kinds
        self._layers = self._model.config.num_hidden_layers

    def __call__(self, request):
        if request.url.path == "/v1/points":
            point = {"name": "resid_post", "description": "", "layers": list(range(self._layers))}
            point |= {"heads": None, "width": 64, "readable": True, "writable": True, "differentiable": True}
            page = {"model": "m", "deployment": "sha256:0", "data": [point | {"reason": None}]}
            return httpx2.Response(200, json=page)
        if request.url.path == "/detokenize":
            return httpx2.Response(200, json={"prompt": "x"})
        runs = json.loads(request.content)["runs"]
        tensors = {
            f"{name}.{key}": array for name, run in runs.items() for key, array in self._run(run).items()
        }
        about = {f"axes.{name}": AXES.get(name.split(".")[1], "pos,unit") for name in tensors}
        return httpx2.Response(200, content=save(tensors, about | {"record": "rec_1"}))

    def _run(self, run):
        seen = self._seen(run["input"]["token_ids"])
        metric = run["grad"]["of"]
        pos, (first, second) = metric["pos"], metric["logit_diff"]
        logits, stream = seen["logits"][0, pos], seen["stream"]
        (logits[first] - logits[second]).backward()
        names = {kind: [kind.format(layer) for layer in range(self._layers)] for kind in self._kinds}
        attn, mlp = (torch.stack([seen[name][0, [pos]] for name in each]) for each in names.values())
        embed = stream[0, [pos]] - attn.sum(0) - mlp.sum(0)
        found = {"stream": stream[0, [pos]], "gradient": stream.grad[0, [pos]]}
        if "logits" in run["read"]:
            found |= {"logits": logits[None, [first, second]], "embed": embed, "attn": attn, "mlp": mlp}
        return {name: value.detach().numpy().copy() for name, value in found.items()}

    def _seen(self, ids):
        seen = {}

        def keep(name):
            def hook(_, __, output):
                seen[name] = output[0] if isinstance(output, tuple) else output

            return hook

        def keep_stream(_, args):
            args[0].retain_grad()
            seen["stream"] = args[0]

        names = [kind.format(layer) for kind in self._kinds for layer in range(self._layers)]
        handles = [self._model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
        handles.append(self._model.get_submodule(self._norm).register_forward_pre_hook(keep_stream))
        seen["logits"] = self._model(torch.tensor([ids])).logits
        for handle in handles:
            handle.remove()
        return seen


def model_of(tiny_root, family):
    *kinds, norm = PARTS.get(family, PARTS["llama"])
    transport = httpx2.MockTransport(Plain(tiny_root(family), norm, kinds))
    return Client(BASE, "", transport=transport).model("m")


# RMSNorm; LayerNorm; LayerNorm behind attention and MLP side by side, and an output matrix of its own.
@pytest.mark.parametrize("pos", [-1, 0, 3])
@pytest.mark.parametrize("family", PARTS)
def test_it_is_what_all_weights_say(tiny_root, family, pos):
    found = model_of(tiny_root, family).direct_logit_attribution(IDS, TOKENS, pos=pos)
    expected, total = plainly_attributed(tiny_root(family), family, IDS, *TOKENS, pos)
    np.testing.assert_allclose(found.data[:-1], expected, atol=1e-4 * np.abs(expected).max())
    assert float(found.sum()) == pytest.approx(total, abs=1e-4)


def test_where_logits_are_capped_nothing_adds_up_and_that_is_said(tiny_root):
    with pytest.raises(UnsupportedParameter, match="logits are capped"):
        model_of(tiny_root, "gemma2").direct_logit_attribution(IDS, TOKENS)


def test_one_token_is_too_short(tiny_root):
    with pytest.raises(UnsupportedParameter, match="two or more"):
        model_of(tiny_root, "llama").direct_logit_attribution(IDS[:1], TOKENS)
