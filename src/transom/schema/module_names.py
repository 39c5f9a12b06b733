"""Paths of transformers' modules, as nnsight and PyTorch hooks name them, and the points of the same values.

Only those that mean the same in every family that has them. What a norm is called says little of where it
stands: `post_attention_layernorm` is in front of the MLP in Llama, and behind the attention in Gemma.
"""

from __future__ import annotations

import re
from typing import Literal

Side = Literal["input", "output"]

_STEMS = ("model.layers", "model.decoder.layers", "transformer.h", "gpt_neox.layers")
"""What stands in front of a layer's number."""

_ATTENTION = ("self_attn", "attn", "attention")
_MIXING = ("self_attn.o_proj", "self_attn.out_proj", "attn.c_proj", "attention.dense")
_FIRST = ("mlp.c_fc", "mlp.dense_h_to_4h", "fc1")
_LAST = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "fc2")

_OF_A_LAYER: dict[tuple[str, Side], str] = {
    ("", "input"): "resid_pre",
    ("", "output"): "resid_post",
    **{(name, "input"): "attn_in" for name in _ATTENTION},
    **{(name, "output"): "attn_out" for name in _ATTENTION},
    ("self_attn.q_proj", "output"): "q",
    ("self_attn.k_proj", "output"): "k",
    ("self_attn.v_proj", "output"): "value",
    **{(name, "input"): "z" for name in _MIXING},
    **{(name, "output"): "attn_out" for name in _MIXING},
    ("mlp", "input"): "mlp_in",
    ("mlp", "output"): "mlp_out",
    ("mlp.gate_proj", "input"): "mlp_in",
    ("mlp.gate_proj", "output"): "mlp_pre",
    ("mlp.up_proj", "input"): "mlp_in",
    ("mlp.up_proj", "output"): "mlp_pre_linear",
    **{(name, "input"): "mlp_in" for name in _FIRST},
    **{(name, "output"): "mlp_pre" for name in _FIRST},
    **{(name, "input"): "mlp_act" for name in _LAST},
    **{(name, "output"): "mlp_out" for name in _LAST},
}

_OF_THE_MODEL: dict[tuple[str, Side], str] = {
    ("model.embed_tokens", "output"): "embeddings",
    ("model.decoder.embed_tokens", "output"): "embeddings",
    ("transformer.wte", "output"): "embeddings",
    ("gpt_neox.embed_in", "output"): "embeddings",
    ("model.norm", "output"): "final_norm",
    ("model.decoder.final_layer_norm", "output"): "final_norm",
    ("transformer.ln_f", "output"): "final_norm",
    ("gpt_neox.final_layer_norm", "output"): "final_norm",
    ("lm_head", "input"): "final_norm",
    ("lm_head", "output"): "lm_head",
    ("embed_out", "input"): "final_norm",
    ("embed_out", "output"): "lm_head",
}

_LAYER = re.compile(
    rf"(?:{'|'.join(map(re.escape, _STEMS))})\.(?P<layers>[^.]+)(?:\.(?P<module>[a-z0-9_.]+))?", re.ASCII
)


def module_point(path: str) -> tuple[str, str | None] | None:
    """The point that a module's input or output is, and what stands in the place of the layer.

    Args:
        path: such as `model.layers.5.mlp.input`; without `input` or `output` the output is meant.

    Returns:
        None where no point is known to be just that.
    """
    bare, dot, last = path.rpartition(".")
    side: Side = "input" if last == "input" else "output"
    module = bare if dot and last in ("input", "output") else path
    if (point := _OF_THE_MODEL.get((module, side))) is not None:
        return point, None
    found = _LAYER.fullmatch(module)
    point = _OF_A_LAYER.get((found["module"] or "", side)) if found else None
    return (point, found["layers"]) if found and point else None
