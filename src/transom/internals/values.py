"""Values that runs leave behind, with named axes, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.errors import PlanFailed
from transom.schema.program import DeriveSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Value:
    """Numbers and the names of their axes."""

    array: Array
    axes: tuple[str, ...]

    def mean(self, axis: str) -> Value:
        """Over one axis; the first one where it has no name."""
        index = self.axes.index(axis) if axis else 0
        # In float64: over many positions a float32 sum would lose digits.
        found = self.array.mean(axis=index, dtype=np.float64).astype(np.float32)
        return Value(found, self.axes[:index] + self.axes[index + 1 :])

    def norm(self) -> Value:
        """Euclidean, over the last axis."""
        squares = np.square(self.array, dtype=np.float64).sum(axis=-1)
        return Value(np.sqrt(squares).astype(np.float32), self.axes[:-1])

    def project(self, direction: Value) -> Value:
        """Dot product with a direction, over the last axis."""
        products = np.ascontiguousarray(self.array, np.float64) * direction.array
        return Value(products.sum(axis=-1).astype(np.float32), self.axes[:-1])


def derive(spec: DeriveSpec, values: Sequence[Value]) -> dict[str, Value]:
    """The value of an expression, by name; `topk` gives two.

    Raises:
        PlanFailed: the values do not fit each other.
    """
    try:
        return _derive(spec, values)
    except ValueError as error:
        shapes = " and ".join(str(value.array.shape) for value in values)
        raise PlanFailed(f"derive.{spec.name}: {spec.op} of values of shape {shapes}: {error}") from error


def _derive(spec: DeriveSpec, values: Sequence[Value]) -> dict[str, Value]:
    first, name = values[0], f"derive.{spec.name}"
    match spec.op:
        case "sub":
            return {name: _wider(first.array - values[1].array, values)}
        case "add":
            total = first.array
            for value in values[1:]:
                total = total + value.array
            return {name: _wider(total, values)}
        case "scale":
            return {name: Value(first.array * np.float32(spec.number), first.axes)}
        case "mean":
            return {name: _mean(spec, values)}
        case "stack":
            return {name: Value(np.stack([value.array for value in values]), ("stack", *first.axes))}
        case "dot":
            return {name: first.project(values[1])}
        case "normalize":
            length = np.maximum(first.norm().array[..., None], np.finfo(np.float32).tiny)
            return {name: Value(first.array / length, first.axes)}
        case "topk":
            return _topk(name, first, int(spec.number))


def _wider(array: Array, values: Sequence[Value]) -> Value:
    """The result of values that were made to fit: its axes are those of the one with the most."""
    return Value(array, max((value.axes for value in values), key=len))


def _mean(spec: DeriveSpec, values: Sequence[Value]) -> Value:
    if len(values) == 1:
        return values[0].mean(spec.axis)
    return Value(np.stack([value.array for value in values]), ("stack", *values[0].axes)).mean("stack")


def _topk(name: str, value: Value, k: int) -> dict[str, Value]:
    """The largest along the last axis, best first, ties by the lower index: values and indices."""
    k = min(k, value.array.shape[-1])
    order = np.argsort(-value.array, axis=-1, kind="stable")[..., :k]
    axes = (*value.axes[:-1], "rank")
    return {
        name: Value(np.take_along_axis(value.array, order, axis=-1), axes),
        f"{name}.ids": Value(order.astype(np.int32), axes),
    }
