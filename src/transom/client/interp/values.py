"""Values of a plan that has not run yet: what a trace reads, arithmetic over that, and tensors at hand."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from transom.client.inside import Tensor

Given: TypeAlias = "Value | Tensor | NDArray[Any] | str"
"""What stands where a plan takes a tensor: a value of the plan, numbers, or the name of an artifact."""


class Value:
    """A value that the server will have while a plan runs: combine values, write them, return them.

    `love["v"] - hate["v"]` is a value too. What values allow is what plans can derive.
    """

    # numpy's arrays leave `array - value` to the value.
    __array_ufunc__ = None

    def __sub__(self, other: Given) -> Value:
        return Derived("sub", (self, other))

    def __rsub__(self, other: Given) -> Value:
        return Derived("sub", (other, self))

    def __add__(self, other: Given) -> Value:
        return Derived("add", (self, other))

    __radd__ = __add__

    def __mul__(self, factor: float) -> Value:
        return Derived("scale", (self, float(factor)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Value:
        return self * (1 / divisor)

    def __neg__(self) -> Value:
        return self * -1

    def mean(self, axis: str | None = None) -> Value:
        """The mean along an axis, or along all."""
        return Derived("mean", self, {} if axis is None else {"axis": axis})

    def dot(self, other: Given) -> Value:
        """The dot product along the last axis."""
        return Derived("dot", (self, other))

    def normalize(self) -> Value:
        """Divided by the Euclidean norm along the last axis."""
        return Derived("normalize", self)

    def topk(self, k: int) -> Value:
        """The k largest along the last axis: `name.ids`, which are their places, and `name.values`."""
        return Derived("topk", self, {"k": k})

    @staticmethod
    def mean_of(values: Sequence[Given]) -> Value:
        """The mean of values of one shape."""
        return Derived("mean", tuple(values))

    @staticmethod
    def stack(values: Sequence[Given]) -> Value:
        """Values of one shape along a new axis in front."""
        return Derived("stack", tuple(values))


@dataclass(frozen=True, eq=False, slots=True)
class Output(Value):
    """What a trace reads, generates or differentiates, by its name there."""

    trace: Any
    """The `Trace`, which knows this module and is not known by it."""
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Derived(Value):
    """An operation of plans over values."""

    operation: str
    operands: Given | float | tuple[Given | float, ...]
    more: Mapping[str, Any] | None = None


def inline(tensor: Tensor | NDArray[Any]) -> dict[str, Any]:
    """Numbers at hand as they stand in a plan: float32, at most 1 MiB of them."""
    numbers = np.ascontiguousarray(tensor, dtype="<f4")
    packed = {"dtype": "float32", "shape": list(numbers.shape) or [1]}
    return {"inline": {**packed, "b64": base64.b64encode(numbers.tobytes()).decode()}}
