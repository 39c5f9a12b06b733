"""Fewer and larger operations in the place of a decoder layer's small ones, where they compute the same.

The modules of a model are transformers'. Most of the time of a small batch goes into starting their many
small operations, so the common shapes (RMSNorm, a gated MLP, attention with rotary embedding) are recognised
by their parts and replaced: projections of the same input become one product, and what lies between two
products becomes one kernel. A replacement is kept only if it gives the numbers of what it replaces on probe
rows; every other module stays as it is, so that an unknown architecture is slower and never wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention, RowMap, floats
from transom.engine.kernels.attention import Floats
from transom.engine.kernels.fused import gate, rms_norm
from transom.engine.linear import PLAIN, LinearKernel, Weight, linears

_PROBE_ROWS = 6
_TOLERANCE = 1e-4
"""Largest difference on the probe rows, relative to the largest number there, in float32."""

_GATED = ("gate_proj", "up_proj")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_NORMS = ("q_norm", "k_norm")
_NO_WEIGHT: Floats = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Norm:
    """Weight and epsilon of an RMSNorm, read off a module."""

    weight: Floats
    eps: np.float32

    @staticmethod
    def read(module: nn.Module) -> Norm | None:
        """None if the module is no RMSNorm, or computes something else under that name."""
        weight = getattr(module, "weight", None)
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not _is_norm(module) or not isinstance(eps, float) or weight is None:
            return None
        rows = torch.randn(_PROBE_ROWS, weight.shape[0], generator=torch.Generator().manual_seed(1))
        for offset in (0.0, 1.0):  # Gemma's weights are distances from one
            norm = Norm(floats(weight.detach().float() + offset), np.float32(eps))
            if _close(torch.from_numpy(norm.apply(floats(rows))), module(rows)):
                return norm
        return None

    def apply(self, rows: Floats) -> Floats:
        """[rows, width] to the same."""
        out = np.empty_like(rows)
        rms_norm(rows, self.weight, self.eps, out)
        return out


QueryKeyNorms = tuple[Floats, Floats, np.float32]
"""Weights of the query's and of the key's norm, [dim] or empty, and their epsilon."""


class _StandIn(nn.Module):
    """Takes the place of a module, and keeps its plain attributes for whoever reads them."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        vars(self).update({name: value for name, value in vars(original).items() if name[0] != "_"})


class FusedNorm(_StandIn):
    """RMSNorm as one kernel."""

    def __init__(self, original: nn.Module, norm: Norm) -> None:
        super().__init__(original)
        self._norm = norm

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] to the same."""
        out = self._norm.apply(floats(inputs.reshape(-1, inputs.shape[-1])))
        return torch.from_numpy(out).to(inputs.dtype).view(inputs.shape)


class FusedMLP(_StandIn):
    """`down(act(gate(x)) * up(x))` as product, kernel, product."""

    def __init__(self, original: nn.Module, kernel: LinearKernel, *, gelu: bool) -> None:
        super().__init__(original)
        self._gate_up = kernel.bind(_stacked(original, _GATED))
        self._down = kernel.bind(_stacked(original, ("down_proj",)))
        self._gelu = gelu

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] to the same."""
        inner = gate(floats(self._gate_up(inputs.reshape(-1, inputs.shape[-1]))), self._gelu)
        return self._down(torch.from_numpy(inner).to(inputs.dtype)).view(inputs.shape)


class FusedAttention(_StandIn):
    """Projections as one product; norms, rotation and storing as one kernel; attention; product."""

    def __init__(
        self, original: nn.Module, kernel: LinearKernel, paged: PagedAttention, norms: QueryKeyNorms
    ) -> None:
        super().__init__(original)
        self._qkv = kernel.bind(_stacked(original, _PROJECTIONS))
        self._out = kernel.bind(_stacked(original, ("o_proj",)))
        self._paged = paged
        self._index = int(original.layer_idx)  # type: ignore[arg-type]
        self._norms = norms

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *_masks: object,
        **_ignored: object,
    ) -> tuple[Tensor, None]:
        """[1, rows, width] to the same. Masks, positions and caches are the paged attention's business."""
        qkv = floats(self._qkv(hidden_states[0]))
        cos, sin = (floats(part[0]) for part in position_embeddings)
        out = self._paged.rotate_and_attend(self._index, qkv, (cos, sin), self._norms)
        mixed = torch.from_numpy(out.reshape(out.shape[0], -1)).to(hidden_states.dtype)
        return self._out(mixed)[None], None


def weights(model: nn.Module) -> Iterator[Weight]:
    """Every weight that may be multiplied by: each linear layer's, and those that fusion would stack."""
    for _, layer in linears(model):
        yield Weight.of(layer)
    for _, module in model.named_modules():
        if _is_gated_mlp(module):
            yield _stacked(module, _GATED)
        if _is_attention(module):
            yield _stacked(module, _PROJECTIONS)


def fuse(model: PreTrainedModel, kernel: LinearKernel, paged: PagedAttention) -> int:
    """Replace what can be replaced, in place, and return how many modules that were.

    The model must already attend through `paged`, whose cache is made small here and is not to be kept.
    """
    replaced = 0
    for name, call in _record(model, paged).items():
        parent_name, _, leaf = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        if getattr(parent, leaf, None) is not call.module:
            continue  # a part of something that was replaced
        if _agrees(call, paged):
            setattr(parent, leaf, _stand_in(call.module, kernel, paged))
            replaced += 1
    return replaced


def _agrees(call: _Call, paged: PagedAttention) -> bool:
    """Whether a stand-in computes what the module does, tried in float32, where a difference shows."""
    module = copy.deepcopy(call.module).float()
    stand_in = _stand_in(module, PLAIN, paged)
    args, kwargs = _widened(call.args), _widened(call.kwargs)
    return stand_in is not None and _close(stand_in(*args, **kwargs), module(*args, **kwargs))


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


def _record(model: PreTrainedModel, paged: PagedAttention) -> dict[str, _Call]:
    """Run probe rows through the model, and keep the calls of the modules that might be replaced."""
    calls: dict[str, _Call] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[name] = _Call(module, args, kwargs)

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(name), with_kwargs=True)
        for name, module in model.named_modules()
        if _is_gated_mlp(module) or _is_attention(module) or _is_norm(module)
    ]
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (1, _PROBE_ROWS), generator=torch.Generator().manual_seed(2))
    paged.allocate(2)
    paged.set_rows(RowMap.alone(_PROBE_ROWS))
    with torch.inference_mode():
        model(input_ids=ids, position_ids=torch.arange(_PROBE_ROWS)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    # The norms inside an attention that is replaced go with it, so attentions come first.
    return dict(sorted(calls.items(), key=lambda item: _is_norm(item[1].module)))


def _stand_in(module: nn.Module, kernel: LinearKernel, paged: PagedAttention) -> nn.Module | None:
    if _is_gated_mlp(module):
        gelu = _is_gelu(module.get_submodule("act_fn"))
        return None if gelu is None else FusedMLP(module, kernel, gelu=gelu)
    if _is_attention(module):
        norms = _read_norms(module, paged)
        return None if norms is None else FusedAttention(module, kernel, paged, norms)
    norm = Norm.read(module)
    return None if norm is None else FusedNorm(module, norm)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm")


def _is_gated_mlp(module: nn.Module) -> bool:
    return _has_linears(module, (*_GATED, "down_proj")) and _parts(module) == {*_GATED, "down_proj", "act_fn"}


def _is_attention(module: nn.Module) -> bool:
    layers = (*_PROJECTIONS, "o_proj")
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
    query, key = (Norm.read(module.get_submodule(name)) for name in _NORMS)
    dim = paged.specs[int(module.layer_idx)].dim  # type: ignore[arg-type]
    if query is None or key is None or query.eps != key.eps:
        return None
    if query.weight.shape != (dim,) or key.weight.shape != (dim,):
        return None
    return query.weight, key.weight, query.eps


def _stacked(module: nn.Module, names: Iterable[str]) -> Weight:
    layers = (module.get_submodule(name) for name in names)
    return Weight.stacked([layer for layer in layers if isinstance(layer, nn.Linear)])


def _close(found: Any, expected: Any) -> bool:  # noqa: ANN401
    """Whether the first tensors agree up to the rounding of their format."""
    left, right = (x[0] if isinstance(x, tuple) else x for x in (found, expected))
    if left.shape != right.shape:
        return False
    return float((left - right).abs().max()) <= _TOLERANCE * float(right.abs().max())
