"""Fewer and larger operations in the place of a decoder layer's small ones, where they compute the same.

The modules of a model are transformers'. Most of the time of a small batch goes into starting their many
small operations, so the common shapes (RMSNorm, a gated MLP, attention with rotary embedding, a layer made of
these) are recognised by their parts and replaced: projections of the same input become one product, and what
lies between two products becomes one kernel. A replacement is kept only if it gives the numbers of what it
replaces on probe rows; every other module stays as it is, so that an unknown architecture is slower and never
wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention, RowMap, floats
from transom.engine.kernels.arrays import Floats
from transom.engine.parts import (
    GATED,
    MLP,
    NO_NORM,
    PROJECTIONS,
    Attention,
    Layer,
    Norm,
    QueryKeyNorms,
)
from transom.engine.stack import stack_layers
from transom.engine.stand_ins import FusedAttention, FusedLayers, FusedMLP, FusedNorm, Stream
from transom.internals.board import Board

log = structlog.get_logger()

_PROBE_ROWS = 6
_TOLERANCE = 1e-4
"""Largest difference on the probe rows, relative to the largest number there, in float32."""

_LAYER = 3
_NORMS = ("q_norm", "k_norm")
_NO_WEIGHT: Floats = np.empty(0, np.float32)

_BEFORE = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
"""Parts of a layer that norms what attention and MLP are given."""
_AROUND = _BEFORE | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
"""Parts of one that norms what they return as well."""


def fuse(model: PreTrainedModel, paged: PagedAttention, longest: int, board: Board) -> int:
    """Replace what can be replaced, in place, and return how many modules that were.

    The model must already attend through `paged`, whose cache is made small here and is not to be kept;
    `longest` is the longest sequence that it can be given. What is posted on `board` is done by what stands
    in.
    """
    replaced: list[str] = []
    stream = Stream(board)
    # Some models treat late positions otherwise than early ones.
    near, far = (_record(model, paged, first) for first in (0, max(0, longest - _PROBE_ROWS)))
    sizes = {name: _size(call.module) for name, call in near.items()}
    turned_alike = _turned_alike(near) and _turned_alike(far)
    for name in sizes:
        calls = [near.pop(name), far.pop(name)]  # so that what is replaced is let go
        if _is_part(name, replaced) or not all(_agrees(call, paged) for call in calls):
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _stand_in(calls[0].module, paged, stream))
        replaced.append(name)
    layers = sum(sizes[name] == _LAYER for name in replaced)
    # Every layer is a stand-in, and whatever norm reads what comes out of them.
    stream.wide = layers == model.config.get_text_config().num_hidden_layers and all(
        name in replaced or _is_part(name, replaced) for name in sizes
    )
    if stream.wide and turned_alike:
        stack_layers(model, paged, stream)
    return len(replaced)


def _turned_alike(calls: dict[str, _Call]) -> bool:
    """Whether all layers were given the same rotary embedding."""
    given = [
        call.kwargs.get("position_embeddings") for call in calls.values() if _size(call.module) == _LAYER
    ]
    return all(each is given[0] for each in given)


def _is_part(name: str, wholes: Iterable[str]) -> bool:
    return any(name.startswith(f"{whole}.") for whole in wholes)


def _agrees(call: _Call, paged: PagedAttention) -> bool:
    """Whether a stand-in computes what the module does, tried in float32, where a difference shows."""
    module = copy.deepcopy(call.module).float()
    args, kwargs = _widened(call.args), _widened(call.kwargs)
    try:
        stand_in = _stand_in(module, paged, Stream(Board()))
        return stand_in is not None and _close(stand_in(*args, **kwargs), module(*args, **kwargs))
    except Exception:  # what it cannot even be called with, a stand-in does not stand for
        log.info("not fused", module=type(module).__name__, exc_info=True)
        return False


def _widened(value: Any) -> Any:  # noqa: ANN401
    """The same structure with every floating-point tensor as float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(map(_widened, value))
    return {key: _widened(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class _Call:
    """What a module was called with on the probe rows."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _record(model: PreTrainedModel, paged: PagedAttention, first: int) -> dict[str, _Call]:
    """Run probe rows, as if at positions from `first` on, and keep the calls of what might be replaced."""
    calls: dict[str, _Call] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[name] = _Call(module, args, kwargs)

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(name), with_kwargs=True)
        for name, module in model.named_modules()
        if _size(module)
    ]
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (1, _PROBE_ROWS), generator=torch.Generator().manual_seed(2))
    paged.allocate(2)
    paged.set_rows(RowMap.alone(_PROBE_ROWS))
    with torch.inference_mode():
        model(input_ids=ids, position_ids=first + torch.arange(_PROBE_ROWS)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    # The parts of what is replaced go with it, so the large ones come first.
    return dict(sorted(calls.items(), key=lambda item: -_size(item[1].module)))


def _size(module: nn.Module) -> int:
    """3 for a layer, 2 for an attention or MLP, 1 for a norm; 0 for what is not replaced."""
    if _parts(module) in (_BEFORE, _AROUND):
        return _LAYER
    return 2 if _is_gated_mlp(module) or _is_attention(module) else int(_is_norm(module))


def _stand_in(module: nn.Module, paged: PagedAttention, stream: Stream) -> nn.Module | None:
    if _parts(module) in (_BEFORE, _AROUND):
        layer = _read_layer(module, paged)
        return None if layer is None else FusedLayers(module, [layer], layer.run, stream)
    if _is_gated_mlp(module):
        mlp = _read_mlp(module)
        return None if mlp is None else FusedMLP(module, mlp)
    if _is_attention(module):
        attention = _read_attention(module, paged)
        return None if attention is None else FusedAttention(module, attention)
    norm = _read_norm(module)
    return None if norm is None else FusedNorm(module, norm)


def _read_layer(module: nn.Module, paged: PagedAttention) -> Layer | None:
    parts = {name: module.get_submodule(name) for name in _parts(module)}
    if not _is_attention(parts["self_attn"]) or not _is_gated_mlp(parts["mlp"]):
        return None
    norms = {name: _read_norm(part) for name, part in parts.items() if name not in {"self_attn", "mlp"}}
    attention, mlp = _read_attention(parts["self_attn"], paged), _read_mlp(parts["mlp"])
    if attention is None or mlp is None or any(norm is None for norm in norms.values()):
        return None
    around = "pre_feedforward_layernorm" in norms
    after = norms["post_attention_layernorm"]
    mlp_norm = norms["pre_feedforward_layernorm"] if around else after
    first, attended = norms["input_layernorm"], after if around else NO_NORM
    output = norms.get("post_feedforward_layernorm", NO_NORM)
    if first is None or attended is None or mlp_norm is None or output is None:
        return None
    return Layer(first, attention, attended, mlp_norm, mlp, output)


def _read_mlp(module: nn.Module) -> MLP | None:
    gelu = _is_gelu(module.get_submodule("act_fn"))
    return None if gelu is None else MLP(module, gelu=gelu)


def _read_attention(module: nn.Module, paged: PagedAttention) -> Attention | None:
    norms = _read_norms(module, paged)
    if norms is None or paged.specs[int(module.layer_idx)].value_dim % 2:  # type: ignore[arg-type]
        return None  # of an odd head, a pair of numbers would belong to two
    return Attention(module, paged, norms)


def _read_norm(module: nn.Module) -> Norm | None:
    """None if the module is no RMSNorm, or computes something else under that name."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not _is_norm(module) or not isinstance(eps, float) or weight is None:
        return None
    rows = torch.randn(_PROBE_ROWS, weight.shape[0], generator=torch.Generator().manual_seed(1))
    for offset in (0.0, 1.0):  # Gemma's weights are distances from one
        norm = Norm(floats(weight.detach().float() + offset), np.float32(eps))
        if _close(torch.from_numpy(norm(floats(rows))), module(rows)):
            return norm
    return None


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm")


def _is_gated_mlp(module: nn.Module) -> bool:
    return _has_linears(module, (*GATED, "down_proj")) and _parts(module) == {*GATED, "down_proj", "act_fn"}


def _is_attention(module: nn.Module) -> bool:
    layers = (*PROJECTIONS, "o_proj")
    return (
        hasattr(module, "layer_idx")
        and _has_linears(module, layers)
        and _parts(module) - {*_NORMS, "rotary_emb"} == set(layers)
    )


def _parts(module: nn.Module) -> set[str]:
    """Names of a module's children and of the parameters that it holds itself."""
    return {name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))}


def _has_linears(module: nn.Module, names: Iterable[str]) -> bool:
    return all(type(getattr(module, name, None)) is nn.Linear for name in names)


def _is_gelu(act: Callable[[Tensor], Tensor]) -> bool | None:
    """Which of the two activations it is, by its numbers; None for another."""
    probe = torch.linspace(-6, 6, 49)
    if _close(nn.functional.silu(probe), act(probe)):
        return False
    return True if _close(nn.functional.gelu(probe, approximate="tanh"), act(probe)) else None


def _read_norms(module: nn.Module, paged: PagedAttention) -> QueryKeyNorms | None:
    """The norms of queries and keys, empty where there are none; None if they are not one for each head."""
    if not hasattr(module, "q_norm"):
        return _NO_WEIGHT, _NO_WEIGHT, np.float32(0)
    query, key = (_read_norm(module.get_submodule(name)) for name in _NORMS)
    dim = paged.specs[int(module.layer_idx)].dim  # type: ignore[arg-type]
    if query is None or key is None or query.eps != key.eps:
        return None
    if query.weight.shape != (dim,) or key.weight.shape != (dim,):
        return None
    return query.weight, key.weight, query.eps


def _close(found: Any, expected: Any) -> bool:  # noqa: ANN401
    """Whether the first tensors agree up to the rounding of their format."""
    if type(found) is not type(expected):
        return False
    left, right = (x[0] if isinstance(x, tuple) else x for x in (found, expected))
    if left.shape != right.shape:
        return False
    return float((left - right).abs().max()) <= _TOLERANCE * float(right.abs().max())
