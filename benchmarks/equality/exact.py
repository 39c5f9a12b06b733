"""The same model in float64 throughout, to see how far float32 itself is from what the weights say.

Transformers' modules compute norms, rotations and the softmax in float32 whatever the weights are; here these
three are replaced.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, repeat_kv

ATTENTION = "exact"
"""Name of the attention in transformers' registry."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Eager attention whose softmax stays in the numbers' own type."""
    keys, values = (repeat_kv(each, module.num_key_value_groups) for each in (key, value))
    scores = query @ keys.transpose(2, 3) * scaling
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return (weights @ values).transpose(1, 2).contiguous(), weights


def _norm(module: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    return (
        module.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + module.variance_epsilon)
    )


def _rotation(module: LlamaRotaryEmbedding, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    angles = position_ids[..., None].to(x.dtype) * module.inv_freq.to(x.dtype)
    both = torch.cat((angles, angles), -1)
    return both.cos(), both.sin()


def make_exact(model: nn.Module) -> None:
    """Replace what would compute in float32."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.__dict__["forward"] = partial(_norm, module)
        if isinstance(module, LlamaRotaryEmbedding):
            module.__dict__["forward"] = partial(_rotation, module)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, eager_mask)
