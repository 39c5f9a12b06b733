"""All decoder layers of a model as one call.

A call from Python costs a tenth of a millisecond with all that a layer is given; thirty of them are a fifth
of a step of a small model. Where every layer is a stand-in of one shape, their weights are laid side by side,
and the loop over them is part of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from transom.engine.attention import PagedAttention
from transom.engine.kernels.arrays import Floats, empty_aligned
from transom.engine.kernels.layer import Factor, NormOf, Stacked, layers
from transom.engine.linear import Product
from transom.engine.parts import Layer, Norm, Rotation
from transom.engine.stand_ins import FusedLayers, Stream


class Stack:
    """Layers of one shape, one after the other.

    Args:
        parts: the layers, whose weights it moves.
    """

    def __init__(self, parts: Sequence[Layer]) -> None:
        first = parts[0]
        self._threads, self._gelu = first.threads, first.mlp.gelu
        self._paged = first.attention.paged
        self._norms = (
            _stacked_norm([part.attention_norm for part in parts]),
            _stacked_norm([part.attended_norm for part in parts]),
            _stacked_norm([part.mlp_norm for part in parts]),
            _stacked_norm([part.output_norm for part in parts]),
        )
        self._factors = (
            _stacked_product([part.attention.products[0] for part in parts]),
            _stacked_product([part.attention.products[1] for part in parts]),
            _stacked_product([part.mlp.products[0] for part in parts]),
            _stacked_product([part.mlp.products[1] for part in parts]),
        )
        query, key, eps = zip(*(part.attention.norms for part in parts), strict=True)
        self._head_norms = np.stack(query), np.stack(key), eps[0]
        specs = [self._paged.specs[part.attention.index] for part in parts]
        scales, windows, softcaps = zip(*(spec.shape for spec in specs), strict=True)
        self._shapes = np.array(scales), np.array(windows, np.int64), np.array(softcaps)
        self._value_dim = specs[0].value_dim
        self._sinks = self._paged.stacked_sinks()

    def run(self, residual: Floats, rotation: Rotation, first: int, end: int) -> None:
        """Write over `residual` [rows, width] with what the layers from `first` up to `end` make of it."""
        some = slice(first, end)
        norms = tuple((weight[some], eps) for weight, eps in self._norms)
        factors = tuple((panels[some], bias[some], width) for panels, bias, width in self._factors)
        place = self._paged.place(rotation)
        layers(residual, norms, factors, self._gelu, self._heads(some), place, self._threads)  # type: ignore[arg-type]

    def _heads(self, some: slice) -> Stacked:
        cache = self._paged.whole_cache
        if cache is None:
            raise RuntimeError("layers of one shape have caches of several")
        (keys, values), (scales, windows, softcaps), (query, key, eps) = cache, self._shapes, self._head_norms
        shapes = scales[some], windows[some], softcaps[some]
        norms = query[some], key[some], eps
        return (keys[some], values[some]), shapes, self._sinks[some], self._value_dim, norms


def stack_layers(model: PreTrainedModel, paged: PagedAttention, stream: Stream) -> None:
    """Replace the list of layers, in place, if they are alike.

    All must be given the same rotary embedding.
    """
    name, found = _layers(model)
    parts = [part for module in found for part in module.layers]
    if not found or not _alike(parts, paged):
        return
    parent, _, leaf = name.rpartition(".")
    whole = FusedLayers(found[0], parts, Stack(parts).run, stream)
    setattr(model.get_submodule(parent), leaf, nn.ModuleList([whole]))


def _layers(model: PreTrainedModel) -> tuple[str, list[FusedLayers]]:
    """The name of the list of decoder layers, and all of them; nothing where one is no stand-in."""
    expected = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            found = [part for part in module if isinstance(part, FusedLayers)]
            if len(found) == len(module) == expected:
                return name, found
    return "", []


def _alike(parts: Sequence[Layer], paged: PagedAttention) -> bool:
    """Whether they differ in numbers alone, and follow each other."""
    shapes = {_shape(part, paged) for part in parts}
    return len(shapes) == 1 and [part.attention.index for part in parts] == list(range(len(parts)))


def _shape(part: Layer, paged: PagedAttention) -> object:
    """Everything about a layer but its numbers."""
    spec = paged.specs[part.attention.index]
    norms = (part.attention_norm, part.attended_norm, part.mlp_norm, part.output_norm)
    factors = part.attention.factors + part.mlp.factors
    query, key, eps = part.attention.norms
    return (
        tuple((norm.weight.shape, float(norm.eps)) for norm in norms),
        tuple((panels.shape, panels.dtype.str, bias.shape, width) for panels, bias, width in factors),
        (query.shape, key.shape, float(eps)),
        (spec.heads, spec.kv_heads, spec.dim, spec.value_dim),
        part.mlp.gelu,
    )


def _stacked_norm(norms: Sequence[Norm]) -> NormOf:
    return np.stack([norm.weight for norm in norms]), norms[0].eps


def _stacked_product(products: Sequence[Product]) -> Factor:
    """Move weights side by side, one after the other, so that memory holds one of them twice and no more."""
    panels, _, width = products[0].factor
    place = empty_aligned((len(products), *panels.shape), panels.dtype)
    for product, own in zip(products, place, strict=True):
        product.move(own)
    return place, np.stack([product.factor[1] for product in products]), width
