"""A plan resolved against the model at hand, on its way from one service to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from transom.errors import InvalidRequest
from transom.schema.changes import TensorData
from transom.schema.plans.refs import Artifact
from transom.schema.plans.values import listed
from transom.schema.program import DeriveSpec, RunSpec
from transom.services.planning.positions import Line

Known: TypeAlias = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Of artifacts, by digest: the shapes of their tensors, by name."""


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


def tensor_of(ref: Artifact, tensors: Mapping[str, tuple[int, ...]] | None, param: str) -> str:
    """The tensor that a reference means.

    Raises:
        InvalidRequest: there is none.
    """
    if tensors is None:
        raise InvalidRequest(
            f"The project has no artifact {ref.sha256}; upload it with POST /v1/artifacts.",
            param=param,
            code="unknown_artifact",
        )
    if ref.tensor is None and len(tensors) == 1:
        return next(iter(tensors))
    if ref.tensor is None or ref.tensor not in tensors:
        missing = "is several tensors" if ref.tensor is None else f"has no tensor {ref.tensor}"
        raise InvalidRequest(
            f"The artifact {missing}; write # and one of {listed(tensors)} behind its digest.",
            param=param,
            code="unknown_artifact",
        )
    return ref.tensor
