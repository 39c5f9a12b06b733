"""Which points a loaded model has, of what shape, and where in its modules the others lie.

Names and the architecture facts behind them are interp-engine's (Apache-2.0). What stands in for a decoder
layer opens it itself; every other point is a module's input or output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from interp_engine.model import REFUSAL_ERRORS, EagerModel
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention, floats
from transom.engine.parts import Layer
from transom.engine.stand_ins import FusedLayers
from transom.internals.board import Board, Floats, Posted, Where
from transom.internals.compile import Shape
from transom.schema.program import ModelPoint


@dataclass(frozen=True, slots=True)
class Boundary:
    """The input or the output of a module."""

    module: str
    """Its name in the model."""
    is_input: bool
    width: int

    @property
    def path(self) -> str:
        """The module's name and the side of it."""
        return f"{self.module}.{'input' if self.is_input else 'output'}"


@dataclass(frozen=True, slots=True)
class Boundaries:
    """The points that lie at the boundaries of a plain model's modules."""

    found: dict[Where, Boundary]
    refused: dict[str, str]
    """Why a point is nowhere in this model."""
    final_norm: str
    """Name of the module."""


@dataclass(frozen=True, slots=True)
class Places:
    """The points of one model."""

    shapes: dict[Where, Shape]
    """Of every place that can be read or written."""
    refused: dict[str, str]
    """Why there is no place for a point."""
    final_norm: nn.Module | None
    """None where it is not known which module that is."""
    modules: dict[Where, tuple[nn.Module, bool]] = field(default_factory=dict)
    """Places at the boundary of a module, and whether it is the input."""
    asides: frozenset[Where] = frozenset()
    """Places where a module is given a copy: what is written there does not reach the rest of the model."""
    differentiable: frozenset[Where] = frozenset()
    """Places that lie at the boundaries of the plain model's modules."""
    paths: dict[Where, str] = field(default_factory=dict)
    """The boundary of the plain model's modules that a place is, such as `model.layers.5.mlp.input`."""
    is_whole: bool = False
    """Whether all layers are one module, which rows can enter at any layer."""


def find_boundaries(model: PreTrainedModel) -> Boundaries:
    """The boundaries of a plain model, whose modules have not been replaced.

    A model whose architecture interp-engine cannot tell has none, and is served all the same.
    """
    try:
        known = EagerModel(type(model).__name__, hf_model=model, tokenizer=object())
    except Exception as error:  # noqa: BLE001  # whatever it met, there is a model to serve
        return Boundaries({}, dict.fromkeys(_BOUNDARIES, f"its architecture is not known: {error}"), "")
    layers = model.config.get_text_config().num_hidden_layers
    modules: dict[Where, tuple[nn.Module, bool]] = {}
    refused: dict[str, str] = {}
    for point in _BOUNDARIES:
        try:
            modules |= {Where(point, layer): _resolved(known, point, layer) for layer in range(layers)}
        except REFUSAL_ERRORS as reason:
            refused[point] = str(reason).splitlines()[0]
    modules[Where("embeddings")] = known.arch.embed, False
    names = {module: name for name, module in model.named_modules()}
    widths = _widths(model, modules)
    found = {
        where: Boundary(names[module], is_input, widths[where])
        for where, (module, is_input) in modules.items()
        if where in widths
    }
    return Boundaries(found, refused, names[known.arch.final_norm])


def _resolved(known: EagerModel, point: str, layer: int) -> tuple[nn.Module, bool]:
    """The module, and whether the point is its input.

    Raises:
        ValueError: it lies at no boundary.
    """
    if point in ("q", "k"):
        module = getattr(known.arch.attn_module(layer), f"{point}_proj", None)
        if not isinstance(module, nn.Module):
            raise ValueError("queries and keys of this architecture are no module's output of their own")
        return module, False
    module, side = known.resolve_point(point, layer)
    arch = known.arch
    if point == "value" and module is arch.fused_qkv_module(layer):
        raise ValueError("values of this architecture are part of a fused projection")
    if point in ("mlp_pre", "mlp_pre_linear") and arch.fused_gate_up(layer) is not None:
        raise ValueError("the branches of this architecture's MLP are parts of a fused projection")
    return module, side == "input"


def _widths(model: PreTrainedModel, modules: dict[Where, tuple[nn.Module, bool]]) -> dict[Where, int]:
    """How wide each boundary is, by a forward of two tokens."""
    board, widths = Board(), dict[Where, int]()

    def seen(where: Where) -> Callable[[Floats], None]:
        return lambda rows: widths.update({where: rows.shape[1]})

    every = slice(None)
    board.post(Posted(where, every, seen(where), 0, writes=False) for where in modules)
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with Hooks(board, modules), torch.inference_mode():
        model(input_ids=ids, use_cache=False)
    return widths


def find_places(model: PreTrainedModel, paged: PagedAttention, boundaries: Boundaries) -> Places:
    """The points of a model whose modules have been replaced, before it is split."""
    width = model.config.get_text_config().hidden_size
    shapes: dict[Where, Shape] = {}
    wholes = [module for module in model.modules() if isinstance(module, FusedLayers)]
    for layer in (layer for whole in wholes for layer in whole.layers):
        shapes |= _of_layer(layer, paged, width)
    modules = {}
    kept = dict(model.named_modules())
    for where, boundary in boundaries.found.items():
        if where not in shapes and boundary.module in kept:
            modules[where] = kept[boundary.module], boundary.is_input
            shapes[where] = _divided(where, boundary.width, paged)
    shapes[LAST] = Shape(1, width)
    present = {where.point for where in shapes}
    refused = {point: reason for point, reason in boundaries.refused.items() if point not in present}
    is_whole = len(wholes) == 1 and len(wholes[0].layers) == len(paged.specs)
    last_norm = kept[boundaries.final_norm] if boundaries.final_norm else None
    asides = frozenset(where for where in modules if where.point in _ASIDES)
    whole = frozenset(where for where in boundaries.found if where in shapes and where.point not in _ASIDES)
    paths = {where: boundary.path for where, boundary in boundaries.found.items() if where in shapes}
    if boundaries.final_norm:
        paths[LAST] = f"{boundaries.final_norm}.output"
    return Places(shapes, refused, last_norm, modules, asides, whole, paths, is_whole)


def _divided(where: Where, width: int, paged: PagedAttention) -> Shape:
    """The shape of a boundary: in heads, where the point has them."""
    spec = paged.specs.get(where.layer)
    if spec is None:
        return Shape(1, width)
    heads = {"q": spec.heads, "z": spec.heads, "k": spec.kv_heads, "value": spec.kv_heads}.get(where.point, 1)
    return Shape(heads, width // heads)


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

_BOUNDARIES = (*_RESIDUAL, *_NEURONS, "q", "k", "value", "z")
"""Points of a layer that may lie at the boundary of a module."""

_ASIDES = frozenset({"resid_mid"})
"""Points that are the input of a norm beside which the stream goes on."""

LAST = Where("final_norm")
"""What the body gives to the head."""


class Hooks:
    """Does what is posted at the boundaries of modules, for as long as it is open; to be used as a context.

    Hooks are there only for forwards in which something is posted, so that no other pays for them.
    """

    def __init__(self, board: Board, modules: dict[Where, tuple[nn.Module, bool]]) -> None:
        self._board = board
        self._modules = modules
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for where in self._board.places:
            if where in self._modules:
                module, is_input = self._modules[where]
                touch = partial(touched, self._board, where)
                self._handles.append(hooked(module, touch, is_input=is_input))

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()


def hooked(
    module: nn.Module, change: Callable[[Tensor], Tensor], *, is_input: bool
) -> torch.utils.hooks.RemovableHandle:
    """Have a module's input or output be what `change` makes of it, until the handle is removed."""

    def entering(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    def leaving(_module: nn.Module, _args: object, output: Any) -> Any:  # noqa: ANN401
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if is_input:
        return module.register_forward_pre_hook(entering, with_kwargs=True)
    return module.register_forward_hook(leaving)


def touched(board: Board, where: Where, output: Tensor) -> Tensor:
    """What a tensor [..., width] becomes, whose rows in front are the rows of the batch."""
    rows: Floats = floats(output.reshape(-1, output.shape[-1])).copy()
    board.touch(where.point, where.layer, rows)
    return torch.from_numpy(rows).to(output.device, output.dtype).view(output.shape)


def model_points(places: Places) -> list[ModelPoint]:
    """Each point, the layers that have it, and its shape there; those that are nowhere, with the reason."""
    layers: dict[tuple[str, Shape], list[int]] = {}
    for where, shape in places.shapes.items():
        layers.setdefault((where.point, shape), []).append(where.layer)
    there = [
        ModelPoint(
            name=point,
            layers=tuple(sorted(found)),
            heads=shape.groups,
            width=shape.width,
            writable=all(Where(point, layer) not in places.asides for layer in found),
            differentiable=all(Where(point, layer) in places.differentiable for layer in found),
            module=_path(places, point, found[0]),
        )
        for (point, shape), found in layers.items()
    ]
    return there + [
        ModelPoint(name=point, layers=(), heads=0, width=0, reason=reason)
        for point, reason in places.refused.items()
    ]


def _path(places: Places, point: str, layer: int) -> str:
    """The path of a point, with a placeholder for the layer."""
    parts = places.paths.get(Where(point, layer), "").split(".")
    return ".".join("{layer}" if part == str(layer) else part for part in parts)
