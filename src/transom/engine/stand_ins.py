"""Modules that take the place of a decoder layer or of its parts: few large operations on plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numba
import numpy as np
import torch
from torch import Tensor, nn

from transom.engine.attention import PagedAttention, floats
from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.fused import rms_norm
from transom.engine.kernels.layer import Factor, Heads, NormOf, attention, gated, layer
from transom.engine.linear import Product, Weight

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
GATED = ("gate_proj", "up_proj")

QueryKeyNorms = tuple[Floats, Floats, np.float32]
"""Weights of the query's and of the key's norm, [dim] or empty, and their epsilon."""

Rotation = tuple[Floats, Floats]
"""Cosines and sines, [rows, rotated dimensions]."""


@dataclass(frozen=True, slots=True)
class Norm:
    """Weight and epsilon of an RMSNorm."""

    weight: Floats
    eps: np.float32

    @property
    def plain(self) -> NormOf:
        """As kernels are given it."""
        return self.weight, self.eps

    def __call__(self, rows: Floats) -> Floats:
        """[rows, width] to the same."""
        out = np.empty_like(rows)
        rms_norm(rows, self.weight, self.eps, out)
        return out


class MLP:
    """`down(act(gate(x)) * up(x))`."""

    def __init__(self, original: nn.Module, *, gelu: bool) -> None:
        self.products = stacked(original, GATED), stacked(original, ("down_proj",))
        self.gelu = gelu
        self._threads = numba.get_num_threads()

    def __call__(self, rows: Floats) -> Floats:
        """[rows, width] to the same."""
        return gated(rows, *self.factors, self.gelu, self._threads)

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """Gate and up, down, as kernels are given them."""
        first, second = self.products
        return first.factor, second.factor


class Attention:
    """Attention with rotary embedding, from the three projections to the last one."""

    def __init__(self, original: nn.Module, paged: PagedAttention, norms: QueryKeyNorms) -> None:
        self.products = stacked(original, PROJECTIONS), stacked(original, ("o_proj",))
        self.paged = paged
        self.index = int(original.layer_idx)  # type: ignore[arg-type]
        self.norms = norms
        self._threads = numba.get_num_threads()

    @property
    def factors(self) -> tuple[Factor, Factor]:
        """Query, key and value, and the last one, as kernels are given them."""
        first, second = self.products
        return first.factor, second.factor

    @property
    def heads(self) -> Heads:
        """What kernels are told of them."""
        return self.paged.heads(self.index, self.norms)

    def __call__(self, rows: Floats, rotation: Rotation) -> Floats:
        """[rows, width] to the same."""
        return attention(rows, *self.factors, self.heads, self.paged.place(rotation), self._threads)


NO_NORM = Norm(np.empty(0, np.float32), np.float32(0))


@dataclass(frozen=True, slots=True)
class Layer:
    """Residual stream in, residual stream out, in float32 between.

    Some models also norm what attention and MLP return, before it is added.
    """

    attention_norm: Norm
    attention: Attention
    attended_norm: Norm
    mlp_norm: Norm
    mlp: MLP
    output_norm: Norm
    threads: int = field(default_factory=numba.get_num_threads)

    def __call__(self, residual: Floats, rotation: Rotation) -> Floats:
        """[rows, width] to the same; `residual` is written over."""
        layer(
            residual,
            (
                self.attention_norm.plain,
                self.attended_norm.plain,
                self.mlp_norm.plain,
                self.output_norm.plain,
            ),
            self.attention.factors + self.mlp.factors,
            self.mlp.gelu,
            self.attention.heads,
            self.attention.paged.place(rotation),
            self.threads,
        )
        return residual


class StandIn(nn.Module):
    """Takes the place of a module, and keeps its plain attributes for whoever reads them."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        vars(self).update({name: value for name, value in vars(original).items() if name[0] != "_"})


class FusedNorm(StandIn):
    """An RMSNorm."""

    def __init__(self, original: nn.Module, norm: Norm) -> None:
        super().__init__(original)
        self._norm = norm

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] to the same."""
        return _like(inputs, self._norm(_rows(inputs)))


class FusedMLP(StandIn):
    """A gated MLP."""

    def __init__(self, original: nn.Module, mlp: MLP) -> None:
        super().__init__(original)
        self._mlp = mlp

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] to the same."""
        return _like(inputs, self._mlp(_rows(inputs)))


class FusedAttention(StandIn):
    """An attention with rotary embedding."""

    def __init__(self, original: nn.Module, attention: Attention) -> None:
        super().__init__(original)
        self._attention = attention

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *_masks: object,
        **_ignored: object,
    ) -> tuple[Tensor, None]:
        """[1, rows, width] to the same. Masks, positions and caches are the paged attention's business."""
        found = self._attention(_rows(hidden_states), _rotation(position_embeddings))
        return _like(hidden_states, found), None


class Stream:
    """What the fused layers of one model share."""

    def __init__(self) -> None:
        self.wide = False
        """Whether hidden rows stay float32 from layer to layer in a narrower model: only where nothing but
        stand-ins reads them."""
        self._newest: Tensor | None = None
        self._embeddings: tuple[Tensor, Tensor] | None = None
        self._rotation: Rotation | None = None

    def rotation(self, position_embeddings: tuple[Tensor, Tensor]) -> Rotation:
        """Cosines and sines, converted once for all layers that are given the same."""
        if self._rotation is None or self._embeddings is not position_embeddings:
            self._embeddings, self._rotation = position_embeddings, _rotation(position_embeddings)
        return self._rotation

    def open(self, hidden: Tensor) -> Floats:
        """The rows of a layer's input, to be written over."""
        rows = _rows(hidden)
        # What the layer before returned belongs to nobody else.
        return rows if hidden is self._newest or hidden.dtype != torch.float32 else rows.copy()

    def close(self, rows: Floats, hidden: Tensor) -> Tensor:
        """The rows as a layer's output, in the shape of its input."""
        self._newest = torch.from_numpy(rows).view(hidden.shape) if self.wide else _like(hidden, rows)
        return self._newest


class FusedStream(StandIn):
    """Whatever takes the residual stream in and gives it back: a decoder layer, or all of them.

    Args:
        original: the module that it takes the place of.
        compute: from rows [rows, width], which it may write over, to the same.
        stream: what all of a model share.
    """

    def __init__(
        self, original: nn.Module, compute: Callable[[Floats, Rotation], Floats], stream: Stream
    ) -> None:
        super().__init__(original)
        self._compute = compute
        self._stream = stream

    def forward(
        self,
        hidden_states: Tensor,
        *_masks: object,
        position_embeddings: tuple[Tensor, Tensor],
        **_ignored: object,
    ) -> Tensor:
        """[1, rows, width] to the same."""
        rows = self._compute(self._stream.open(hidden_states), self._stream.rotation(position_embeddings))
        return self._stream.close(rows, hidden_states)


class FusedLayer(FusedStream):
    """A whole decoder layer."""

    def __init__(self, original: nn.Module, layer: Layer, stream: Stream) -> None:
        super().__init__(original, layer, stream)
        self.layer = layer


def stacked(module: nn.Module, names: Iterable[str]) -> Product:
    """One product for linear layers of `module` that are fed the same rows."""
    layers = (module.get_submodule(name) for name in names)
    return Product(Weight.stacked([layer for layer in layers if isinstance(layer, nn.Linear)]))


def _rows(inputs: Tensor) -> Floats:
    return floats(inputs.reshape(-1, inputs.shape[-1]))


def _like(inputs: Tensor, rows: Floats) -> Tensor:
    return torch.from_numpy(rows).to(inputs.dtype).view(inputs.shape)


def _rotation(position_embeddings: tuple[Tensor, Tensor]) -> Rotation:
    cos, sin = (floats(part[0]) for part in position_embeddings)
    return cos, sin
