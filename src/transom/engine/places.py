"""Which points a loaded model has, of what shape, and where in its modules the others lie.

Names and the architecture facts behind them are interp-engine's (Apache-2.0). What stands in for a decoder
layer opens it itself; every other point is a module's input or output.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from interp_engine.arch import resolve_arch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention, floats
from transom.engine.parts import Layer
from transom.engine.stand_ins import FusedLayers
from transom.internals.board import Board, Floats, Where
from transom.internals.compile import Shape
from transom.schema.program import ModelPoint


@dataclass(frozen=True, slots=True)
class Places:
    """The points of one model."""

    shapes: dict[Where, Shape]
    """Of every place that can be read or written."""
    final_norm: nn.Module
    modules: dict[Where, nn.Module] = field(default_factory=dict)
    """Places that are the output of a module."""


def find_places(model: PreTrainedModel, paged: PagedAttention) -> Places:
    """The points of a model whose modules have been replaced, before it is split."""
    arch = resolve_arch(model, model.config.get_text_config())
    width = model.config.get_text_config().hidden_size
    shapes = {Where("embeddings"): Shape(1, width), Where("final_norm"): Shape(1, width)}
    for module in model.modules():
        if isinstance(module, FusedLayers):
            for layer in module.layers:
                shapes |= _of_layer(layer, paged, width)
    return Places(shapes, arch.final_norm, {Where("embeddings"): arch.embed})


def _of_layer(layer: Layer, paged: PagedAttention, width: int) -> dict[Where, Shape]:
    index = layer.attention.index
    spec = paged.specs[index]
    heads, kept = spec.heads, spec.kv_heads
    neurons = layer.mlp.products[1].in_features
    found = dict.fromkeys(_RESIDUAL, Shape(1, width)) | dict.fromkeys(_NEURONS, Shape(1, neurons))
    found |= {
        "q": Shape(heads, spec.dim),
        "q_rot": Shape(heads, spec.dim),
        "k": Shape(kept, spec.dim),
        "value": Shape(kept, spec.value_dim),
        "k_rot": Shape(kept, spec.dim),
        "attn_scores": Shape(heads, 0),
        "attn_probs": Shape(heads, 0),
        "z": Shape(heads, spec.value_dim),
    }
    return {Where(point, index): shape for point, shape in found.items()}


_RESIDUAL = (
    "resid_pre",
    "attn_in",
    "attn_out",
    "attn_out_post",
    "resid_mid",
    "mlp_in",
    "mlp_out",
    "mlp_out_post",
    "resid_post",
)
"""Points of a layer that are as wide as the residual stream."""

_NEURONS = ("mlp_pre", "mlp_pre_linear", "mlp_act")


class Hooks:
    """Does what is posted at the outputs of modules, for as long as it is open; to be used as a context.

    Hooks are there only for forwards in which something is posted, so that no other pays for them.
    """

    def __init__(self, board: Board, modules: dict[Where, nn.Module]) -> None:
        self._board = board
        self._modules = modules
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        self._handles = [
            self._modules[where].register_forward_hook(_Hook(self._board, where))
            for where in self._board.places
            if where in self._modules
        ]

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()


class _Hook:
    """Touches a place with what a module returns, [1, rows, width]."""

    def __init__(self, board: Board, where: Where) -> None:
        self._board = board
        self._where = where

    def __call__(self, _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return touched(self._board, self._where, output[0]), *output[1:]
        return touched(self._board, self._where, output)


def touched(board: Board, where: Where, output: Tensor) -> Tensor:
    """What a tensor [..., width] becomes, whose rows in front are the rows of the batch."""
    rows: Floats = floats(output.reshape(-1, output.shape[-1])).copy()
    board.touch(where.point, where.layer, rows)
    return torch.from_numpy(rows).to(output.device, output.dtype).view(output.shape)


def model_points(places: Places) -> list[ModelPoint]:
    """Each point, the layers that have it, and its shape, which is alike in all of them."""
    layers: dict[tuple[str, Shape], list[int]] = {}
    for where, shape in places.shapes.items():
        layers.setdefault((where.point, shape), []).append(where.layer)
    return [
        ModelPoint(name=point, layers=tuple(sorted(found)), heads=shape.groups, width=shape.width)
        for (point, shape), found in layers.items()
    ]
