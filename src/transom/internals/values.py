"""Values that runs leave behind, with named axes, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        """Along one axis, or along all where none is named.

        Raises:
            ValueError: there is no such axis.
        """
        if not axis:
            return Value(np.asarray(self.array.mean(dtype=np.float64), np.float32), ())
        if axis not in self.axes:
            raise ValueError(f"there is no axis {axis}; there are {', '.join(self.axes)}")
        index = self.axes.index(axis)
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
        raise PlanFailed(f"{spec.name}: {spec.op} of values of shape {shapes}: {error}") from error


def _derive(spec: DeriveSpec, values: Sequence[Value]) -> dict[str, Value]:
    if spec.op == "topk":
        return _topk(spec.name, values[0], int(spec.number))
    return {spec.name: _OPERATIONS[spec.op](spec, values)}


def _sub(_spec: DeriveSpec, values: Sequence[Value]) -> Value:
    return _wider(values[0].array - values[1].array, values)


def _add(_spec: DeriveSpec, values: Sequence[Value]) -> Value:
    total = values[0].array
    for value in values[1:]:
        total = total + value.array
    return _wider(total, values)


def _scale(spec: DeriveSpec, values: Sequence[Value]) -> Value:
    return Value(values[0].array * np.float32(spec.number), values[0].axes)


def _stack(spec: DeriveSpec, values: Sequence[Value]) -> Value:
    array = np.stack([value.array for value in values])
    if not spec.grid:
        return Value(array, ("stack", *values[0].axes))
    lengths = tuple(length for _, length in spec.grid)
    axes = tuple(f"sweep_{name}" for name, _ in spec.grid)
    return Value(array.reshape(*lengths, *array.shape[1:]), (*axes, *values[0].axes))


def _dot(_spec: DeriveSpec, values: Sequence[Value]) -> Value:
    return values[0].project(values[1])


def _normalize(_spec: DeriveSpec, values: Sequence[Value]) -> Value:
    length = np.maximum(values[0].norm().array[..., None], np.finfo(np.float32).tiny)
    return Value(values[0].array / length, values[0].axes)


def _wider(array: Array, values: Sequence[Value]) -> Value:
    """The result of values that were made to fit: its axes are those of the one with the most."""
    return Value(array, max((value.axes for value in values), key=len))


def _mean(spec: DeriveSpec, values: Sequence[Value]) -> Value:
    if not spec.among:
        return values[0].mean(spec.axis)
    return Value(np.stack([value.array for value in values]), ("among", *values[0].axes)).mean("among")


_OPERATIONS: dict[str, Callable[[DeriveSpec, Sequence[Value]], Value]] = {
    "sub": _sub,
    "add": _add,
    "scale": _scale,
    "mean": _mean,
    "stack": _stack,
    "dot": _dot,
    "normalize": _normalize,
}


def _topk(name: str, value: Value, k: int) -> dict[str, Value]:
    """The largest along the last axis, best first, ties by the lower index: values and indices."""
    k = min(k, value.array.shape[-1])
    order = np.argsort(-value.array, axis=-1, kind="stable")[..., :k]
    axes = (*value.axes[:-1], "rank")
    return {
        f"{name}.values": Value(np.take_along_axis(value.array, order, axis=-1), axes),
        f"{name}.ids": Value(order.astype(np.int32), axes),
    }
