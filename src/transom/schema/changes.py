"""What is written inside one sequence, resolved against one model: dense, without names of anybody's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

GLOBAL = -1
"""The layer of a point that belongs to none."""

WriteOp = Literal["set", "add", "zero", "noise", "scale_along", "project_out", "clamp"]

DIRECTED = ("scale_along", "project_out", "clamp")
"""Operations whose value is a direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorData:
    """Numbers that came with what was asked."""

    shape: tuple[int, ...]
    data: bytes = b""
    """Little-endian float32, the last axis fastest."""
    file: str = ""
    """Where they lie instead, where they are too many for a message."""
    start: int = 0
    """Of the file: the byte at which they begin."""

    @classmethod
    def of(cls, array: NDArray[np.float32]) -> Self:
        """The numbers of an array."""
        return cls(shape=array.shape, data=array.astype("<f4").tobytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSpec:
    """A point at positions of one sequence."""

    point: str
    layer: int = GLOBAL
    positions: tuple[int, ...]
    """Rising, each below the longest that the sequence can become."""
    heads: tuple[int, ...] = ()
    """Empty for all, and where the point has none."""
    units: tuple[int, ...] = ()
    """Of a row, or of each head; empty for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSpec:
    """A change inside a sequence."""

    site: SiteSpec
    op: WriteOp
    value: str = ""
    """The name of a value; empty for none, or where it is a number."""
    number: float = 0.0
    """What it is set to, or what is added, where `value` is empty."""
    scale: float = 1.0

    @property
    def is_borrowed(self) -> bool:
        """Whether the value is what another run has at this very site."""
        return self.value.rpartition(".")[2].startswith("_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Writes of one sequence that takes no values from others."""

    writes: tuple[WriteSpec, ...]
    tensors: dict[str, TensorData] = field(default_factory=dict)
    """By the names that the writes have for them."""
    longest: int
    """Positions that the sequence can have, its last token's included; an attention pattern is as wide."""
