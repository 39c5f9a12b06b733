"""A decoder layer and its parts as few large operations on plain arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numba
import numpy as np
from torch import nn

from transom.engine.attention import PagedAttention
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
        self.threads = numba.get_num_threads()

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
        return attention(rows, *self.factors, self.heads, self.paged.place(rotation), self.threads)


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

    def run(self, residual: Floats, rotation: Rotation, _first: int = 0, _end: int = 1) -> None:
        """Write over `residual` [rows, width]. It is the only one of its list."""
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


def stacked(module: nn.Module, names: Iterable[str]) -> Product:
    """One product for linear layers of `module` that are fed the same rows."""
    layers = (module.get_submodule(name) for name in names)
    return Product(Weight.stacked([layer for layer in layers if isinstance(layer, nn.Linear)]))
