"""Shapes and axes of derived values, before there are any: the same rules as in `internals.values`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from transom.errors import InvalidRequest
from transom.schema.program import DeriveSpec

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """What is known of a value: how long each axis is at most, and what it is called."""

    shape: Shape
    axes: tuple[str, ...]
    is_integer: bool = False
    """Whether its numbers are int32, which only name something, and not float32."""

    @property
    def numbers(self) -> int:
        """How many it has at most."""
        return math.prod(self.shape)

    def without(self, axis: str) -> Form:
        """The same less an axis.

        Raises:
            ValueError: it has none of that name.
        """
        if axis not in self.axes:
            raise ValueError(
                f"there is no axis {axis}; there are {', '.join(filter(None, self.axes)) or 'none'}"
            )
        index = self.axes.index(axis)
        return Form(self.shape[:index] + self.shape[index + 1 :], self.axes[:index] + self.axes[index + 1 :])


def fitted(one: Shape, other: Shape) -> Shape | None:
    """The shape of what is made of both element by element; None where they do not fit."""
    try:
        return np.broadcast_shapes(one, other)
    except ValueError:
        return None


def derived_forms(spec: DeriveSpec, forms: Mapping[str, Form]) -> dict[str, Form]:
    """The forms of a derived value, by name.

    Raises:
        InvalidRequest: there is no such value.
    """
    of = [forms[ref] for ref in spec.of]
    try:
        form = _combined(spec, of)
    except ValueError as error:
        shapes = " and ".join(str(list(each.shape)) for each in of[:4])
        raise InvalidRequest(
            f"{spec.op} of values of shape {shapes} cannot be taken: {str(error).strip(' .')}.",
            param="sweep" if spec.grid else spec.name,
        ) from error
    if spec.op == "topk":
        return {f"{spec.name}.ids": replace(form, is_integer=True), f"{spec.name}.values": form}
    return {spec.name: form}


def _combined(spec: DeriveSpec, of: Sequence[Form]) -> Form:
    """The form of an expression.

    Raises:
        ValueError: there is none.
    """
    first = of[0]
    if not first.shape and spec.op in ("dot", "normalize", "topk"):
        raise ValueError("a single number has no axis")
    match spec.op:
        case "sub" | "add":
            return _broadcast(of)
        case "stack":
            lengths = tuple(length for _, length in spec.grid) or (len(of),)
            names = tuple(f"sweep_{name}" for name, _ in spec.grid) or ("stack",)
            alike = _alike(of)
            return Form((*lengths, *alike.shape), (*names, *alike.axes), alike.is_integer)
        case "mean":
            return _alike(of) if spec.among else first.without(spec.axis) if spec.axis else Form((), ())
        case "dot":
            both = _broadcast(of)
            return Form(both.shape[:-1], both.axes[:-1])
        case "topk":
            count = min(int(spec.number), first.shape[-1])
            return Form((*first.shape[:-1], count), (*first.axes[:-1], "rank"))
        case _:
            return first


def _broadcast(of: Sequence[Form]) -> Form:
    # numpy takes no more than 64 at once.
    shape = of[0].shape
    for other in of[1:]:
        shape = np.broadcast_shapes(shape, other.shape)
    return Form(shape, max((form.axes for form in of), key=len))


def _alike(of: Sequence[Form]) -> Form:
    if any(form.shape != of[0].shape for form in of):
        raise ValueError("they differ in shape")
    return of[0]
