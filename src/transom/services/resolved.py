"""A plan resolved against the model at hand, on its way from one service to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from transom.schema.changes import TensorData
from transom.schema.program import DeriveSpec, RunSpec
from transom.services.positions import Line


@dataclass(frozen=True, slots=True)
class Needed:
    """A tensor of an artifact that a plan takes."""

    sha256: str
    tensor: str
    shape: tuple[int, ...]
    param: str
    """The field that takes it first."""


@dataclass
class Resolved:
    """A plan, resolved."""

    runs: list[RunSpec] = field(default_factory=list)
    derive: list[DeriveSpec] = field(default_factory=list)
    """In an order in which each finds what it needs; some may have to wait for runs, and runs for them."""
    returns: tuple[str, ...] = ()
    tensors: dict[str, TensorData] = field(default_factory=dict)
    artifacts: dict[str, Needed] = field(default_factory=dict)
    """By the names of their values, as those of `tensors`."""
    lines: dict[str, Line] = field(default_factory=dict)
    """By run, as `runs` names them."""
    echoes: dict[str, str] = field(default_factory=dict)
    """Of each read, write (`run.write.0`) and gradient, the canonical name of its point."""
