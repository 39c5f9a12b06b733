"""Modules that take the place of a decoder layer or of its parts, and hand plain arrays to these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from transom.engine.attention import floats
from transom.engine.kernels.arrays import Floats
from transom.engine.opened import Closed, run_layers
from transom.engine.parts import MLP, Attention, Layer, Norm, Rotation
from transom.internals.board import Board


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

    def __init__(self, board: Board) -> None:
        self.board = board
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


class FusedLayers(StandIn):
    """Decoder layers that follow each other: one, or all of them.

    Args:
        original: a module that it takes the place of.
        layers: in their order.
        closed: runs some of them, where nobody reads or writes inside.
        stream: what all of a model share.
    """

    def __init__(self, original: nn.Module, layers: Sequence[Layer], closed: Closed, stream: Stream) -> None:
        super().__init__(original)
        self.layers = layers
        self._closed = closed
        self._stream = stream

    def forward(
        self,
        hidden_states: Tensor,
        *_masks: object,
        position_embeddings: tuple[Tensor, Tensor],
        **_ignored: object,
    ) -> Tensor:
        """[1, rows, width] to the same."""
        stream = self._stream
        rows, rotation = stream.open(hidden_states), stream.rotation(position_embeddings)
        run_layers(self.layers, self._closed, rows, rotation, stream.board)
        return stream.close(rows, hidden_states)


def _rows(inputs: Tensor) -> Floats:
    return floats(inputs.reshape(-1, inputs.shape[-1]))


def _like(inputs: Tensor, rows: Floats) -> Tensor:
    return torch.from_numpy(rows).to(inputs.dtype).view(inputs.shape)


def _rotation(position_embeddings: tuple[Tensor, Tensor]) -> Rotation:
    cos, sin = (floats(part[0]) for part in position_embeddings)
    return cos, sin
