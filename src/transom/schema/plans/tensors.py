"""Tensors that stand in the plan itself."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.plans.values import FLOAT32_MAX, form, located, one_of, problem
from transom.schema.wire import Body

MAX_INLINE_BYTES = 1 << 20
"""Most bytes of one inline tensor, decoded."""

MAX_PLAN_BYTES = 8 << 20
"""Most bytes of all inline tensors of a plan, decoded."""

MAX_AXES = 8

_MOST_NUMBERS = MAX_INLINE_BYTES // 4
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

Floats = NDArray[np.float32]


class Packed(Body):
    """A tensor as bytes."""

    dtype: Literal["float32", "bfloat16", "float16"]
    shape: list[Annotated[int, Field(ge=1, lt=2**31)]] = Field(
        min_length=1, max_length=MAX_AXES, description="Length of each axis, the outermost first."
    )
    b64: str = Field(
        max_length=4 * (MAX_INLINE_BYTES // 3 + 1),
        description="The numbers in row-major order, little-endian, in standard base64 with padding.",
    )

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Self:
        raw = self._decoded()
        needed = math.prod(self.shape) * _ITEM_BYTES[self.dtype]
        if needed != len(raw):
            message = "holds {held} bytes, and {dtype} of this shape takes {needed}; correct one of them"
            raise located(
                problem(("b64",), "tensor", message, held=len(raw), dtype=self.dtype, needed=needed)
            )
        finite = np.isfinite(_as_float32(raw, self.dtype))
        if not finite.all():
            index = np.unravel_index(int(np.argmin(finite)), self.shape)
            message = "holds a number that is not finite, at {index}; replace or remove it"
            raise located(problem(("b64",), "tensor", message, index=str([int(i) for i in index])))
        return self

    def _decoded(self) -> bytes:
        try:
            raw = base64.b64decode(self.b64, validate=True)
        except (binascii.Error, ValueError):
            message = "is no base64; write the standard alphabet with padding, and no line breaks"
            raise located(problem(("b64",), "tensor", message)) from None
        if len(raw) > MAX_INLINE_BYTES:
            raise located(problem(("b64",), "tensor", _TOO_LARGE, most=MAX_INLINE_BYTES))
        return raw

    @property
    def nbytes(self) -> int:
        """Bytes of it, decoded."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]

    def array(self) -> Floats:
        """Its numbers as float32, which holds those of all three types exactly."""
        return _as_float32(base64.b64decode(self.b64), self.dtype).reshape(self.shape)


_TOO_LARGE = (
    "holds more than {most} bytes, the most of an inline tensor; upload it as an artifact, or send less of it"
)


def _as_float32(raw: bytes, dtype: str) -> Floats:
    if dtype == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, "<f4" if dtype == "float32" else "<f2").astype(np.float32)


def nested_shape(rows: list[Any]) -> tuple[int, ...]:
    """The shape of nested lists of equal length that hold finite numbers.

    It goes level by level and not by recursion, so that no depth exhausts the stack.

    Raises:
        ValidationError: they are ragged, too deep, too many, or hold something else; it says where.
    """
    shape: list[int] = []
    level: list[Any] = [rows]
    while True:
        shape.append(_common_length(level, shape))
        items = [item for row in level for item in row]
        lists = sum(isinstance(item, list) for item in items)
        if not lists:
            _check_numbers(items, shape)
            return tuple(shape)
        if lists != len(items):
            is_list = isinstance(items[0], list)
            odd = next(i for i, item in enumerate(items) if isinstance(item, list) != is_list)
            message = "lists and numbers stand side by side; write lists of equal length, or only numbers"
            raise located(problem(_index(odd, shape), "tensor", message))
        level = items


def _common_length(level: list[Any], shape: list[int]) -> int:
    length = len(level[0])
    for index, row in enumerate(level):
        if len(row) != length:
            message = "has length {found} where its siblings have {length}; make lists equally long"
            raise located(problem(_index(index, shape), "tensor", message, found=len(row), length=length))
    if length == 0:
        raise PydanticCustomError("tensor", "holds no numbers; write at least one")
    if len(shape) == MAX_AXES:
        raise PydanticCustomError("tensor", "is nested more than {most} deep; flatten it", {"most": MAX_AXES})
    if len(level) * length > _MOST_NUMBERS:
        raise PydanticCustomError("tensor", _TOO_LARGE, {"most": MAX_INLINE_BYTES})
    return length


def _check_numbers(items: list[Any], shape: list[int]) -> None:
    for index, item in enumerate(items):
        if type(item) not in {int, float}:
            raise located(problem(_index(index, shape), "tensor", "is no number; write only numbers"))
        # False for NaN too, and exact for an integer of any size.
        if not -FLOAT32_MAX <= item <= FLOAT32_MAX:
            message = "is not finite in float32; replace or remove it"
            raise located(problem(_index(index, shape), "tensor", message))


def _index(flat: int, shape: list[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _nested(rows: list[Any]) -> list[Any]:
    nested_shape(rows)
    return rows


Nested = Annotated[
    list[Any],
    AfterValidator(_nested),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": ["number", "array"]},
            "description": "Numbers, or nested lists of equal length that hold numbers; they become float32.",
        }
    ),
]

_PACKED = form(Packed)
_NESTED = form(Nested)


def _packed_or_nested(value: object) -> TypeAdapter[Any] | None:
    return _PACKED if isinstance(value, dict) else _NESTED if isinstance(value, list) else None


class Inline(Body):
    """A tensor that stands in the plan itself: at most 1 MiB, and all of a plan 8 MiB, decoded."""

    inline: Annotated[
        Packed | Nested,
        one_of(_packed_or_nested, "must be a list of numbers, or an object with dtype, shape and b64"),
    ]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        if isinstance(self.inline, Packed):
            return tuple(self.inline.shape)
        shape: list[int] = []
        rows: Any = self.inline
        while isinstance(rows, list):
            shape.append(len(rows))
            rows = rows[0]
        return tuple(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of it, decoded; numbers that are written out count as float32."""
        return self.inline.nbytes if isinstance(self.inline, Packed) else 4 * math.prod(self.shape)

    def array(self) -> Floats:
        """Its numbers as float32."""
        if isinstance(self.inline, Packed):
            return self.inline.array()
        return np.array(self.inline, np.float32)
