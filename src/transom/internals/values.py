"""Values that runs leave behind, with named axes, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.errors import PlanFailed
from transom.schema.changes import TensorData
from transom.schema.program import DeriveSpec

Array = NDArray[Any]

_BLOCK = 1 << 18
"""Numbers that are worked on at once, where that takes more room than they do."""


@dataclass(frozen=True, slots=True)
class Value:
    """Numbers and the names of their axes."""

    array: Array
    axes: tuple[str, ...]

    @classmethod
    def of(cls, tensor: TensorData) -> Value:
        """Numbers that came with a plan. Those in a file are not read before they are used.

        Raises:
            OSError, ValueError: the file is not there any more.
        """
        count = math.prod(tensor.shape)
        if tensor.file:
            whole = np.memmap(tensor.file, "<f4", mode="r", offset=tensor.start, shape=(count,))
            numbers: Array = np.asarray(whole)
        else:
            numbers = np.frombuffer(tensor.data, "<f4")
        return cls(numbers.reshape(tensor.shape), ("",) * len(tensor.shape))

    def mean(self, axis: str) -> Value:
        """Along one axis, or along all where none is named.

        Raises:
            ValueError: there is no such axis, or nothing along it.
        """
        if not self.array.size:
            raise ValueError("it is empty, and has no mean; the run ended before its first position")
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
        return Value(np.sqrt(_row_by_row(self.array, self.array)).astype(np.float32), self.axes[:-1])

    def project(self, direction: Value) -> Value:
        """Dot product with a direction, over the last axis.

        Raises:
            ValueError: they do not fit each other.
        """
        left, right = np.broadcast_arrays(self.array, direction.array)
        axes = max(self.axes, direction.axes, key=len)
        return Value(_row_by_row(left, right).astype(np.float32), axes[:-1])


def _row_by_row(left: Array, right: Array) -> NDArray[np.float64]:
    """Products of two arrays of one shape, summed over the last axis in float64, some rows at a time."""
    if left.ndim == 1:
        return np.asarray(_row_by_row(left[None], right[None])[0])
    found = np.empty(left.shape[:-1], np.float64)
    rows = max(1, _BLOCK // max(1, left.shape[-1]))
    for index in np.ndindex(left.shape[:-2]):
        one, other, into = left[index], right[index], found[index]
        for start in range(0, len(one), rows):
            some = slice(start, start + rows)
            into[some] = (one[some].astype(np.float64) * other[some]).sum(axis=-1)
    return found


def derive(spec: DeriveSpec, values: Sequence[Value]) -> dict[str, Value]:
    """The value of an expression, by name; `topk` gives two.

    Raises:
        PlanFailed: the values do not fit each other.
    """
    try:
        # What is too large for a float32 is infinite, as it is anywhere in such arithmetic.
        with np.errstate(over="ignore", invalid="ignore"):
            return _derive(spec, values)
    except ValueError as error:
        shapes = " and ".join(str(value.array.shape) for value in values[:4])
        raise PlanFailed(
            f"{spec.name}: {spec.op} of values of shape {shapes}: {str(error).strip()}.", param=spec.name
        ) from error


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
    total = np.zeros(_one_shape(values), np.float64)
    for value in values:
        total += value.array
    return Value((total / len(values)).astype(np.float32), values[0].axes)


def _one_shape(values: Sequence[Value]) -> tuple[int, ...]:
    if len({value.array.shape for value in values}) > 1:
        raise ValueError("they differ in shape")
    return values[0].array.shape


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
    width = value.array.shape[-1]
    k = min(k, width)
    flat = value.array.reshape(-1, width)
    order = np.empty((len(flat), k), np.int32)
    rows = max(1, _BLOCK // width)
    for start in range(0, len(flat), rows):
        some = slice(start, start + rows)
        order[some] = np.argsort(-flat[some], axis=-1, kind="stable")[:, :k]
    ids, axes = order.reshape(*value.array.shape[:-1], k), (*value.axes[:-1], "rank")
    return {
        f"{name}.values": Value(np.take_along_axis(value.array, ids, axis=-1), axes),
        f"{name}.ids": Value(ids, axes),
    }
