"""Numbers that come with a plan."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.plans.names import RefText, by, tag
from transom.schema.wire import Body

MAX_INLINE_BYTES = 1 << 20
"""Of one tensor, as float32."""

_MOST_AXES = 4
_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Packed(Body):
    """A tensor as bytes."""

    dtype: Literal["float32", "float16", "bfloat16"]
    shape: list[int] = Field(max_length=_MOST_AXES, description="Lengths of the axes, the last one fastest")
    b64: str = Field(max_length=2 * MAX_INLINE_BYTES, description="Little-endian, in base64")

    def decoded(self) -> NDArray[np.float32]:
        """The numbers.

        Raises:
            ValueError: they are not what the shape says.
        """
        if any(not 0 < length <= MAX_INLINE_BYTES for length in self.shape):
            raise ValueError("each axis has a length of at least 1")
        count = math.prod(self.shape)
        if 4 * count > MAX_INLINE_BYTES:
            raise ValueError(f"{count} numbers are more than {MAX_INLINE_BYTES // 4}")
        try:
            data = base64.b64decode(self.b64, validate=True)
        except binascii.Error as error:
            raise ValueError(f"b64 is no base64: {error}") from error
        if len(data) != count * _SIZES[self.dtype]:
            raise ValueError(
                f"{self.shape} of {self.dtype} are {count * _SIZES[self.dtype]} bytes, and not {len(data)}"
            )
        if self.dtype == "bfloat16":
            found = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            found = np.frombuffer(data, "<f4" if self.dtype == "float32" else "<f2").astype(np.float32)
        return found.reshape(self.shape)


class Inline(Body):
    """A tensor in the place of a reference: packed, or as nested lists of numbers."""

    inline: Packed | list[Any] = Field(description="Packed bytes, or numbers in nested lists of equal length")
    _array: NDArray[np.float32] = PrivateAttr()

    @property
    def array(self) -> NDArray[np.float32]:
        """The numbers, all of them finite."""
        return self._array

    @model_validator(mode="after")
    def _decode(self) -> Inline:
        try:
            if isinstance(self.inline, Packed):
                array = self.inline.decoded()
            else:
                _check_lists(self.inline)
                array = np.array(self.inline, np.float32)
        except (ValueError, OverflowError) as error:
            raise PydanticCustomError(
                "inline", "is no tensor: {reason}", {"reason": str(error)[:200]}
            ) from error
        if not array.size or array.nbytes > MAX_INLINE_BYTES:
            raise PydanticCustomError(
                "inline",
                "has {bytes} bytes; from 1 number to {most} bytes",
                {"bytes": array.nbytes, "most": MAX_INLINE_BYTES},
            )
        if not np.isfinite(array).all():
            raise PydanticCustomError("inline", "holds a number that is not finite, or too large for float32")
        self._array = array
        return self


def _check_lists(value: list[Any], depth: int = 1) -> None:
    """Pass lists of numbers that are not nested too deeply.

    Raises:
        ValueError: they are, or something else is in them.
    """
    if depth > _MOST_AXES:
        raise ValueError(f"more than {_MOST_AXES} axes")
    for item in value:
        if isinstance(item, list):
            _check_lists(item, depth + 1)
        elif not isinstance(item, int | float) or isinstance(item, bool):
            raise ValueError("something in it is no number")  # noqa: TRY004  # of what was sent


def _is_text(value: Any) -> str:  # noqa: ANN401
    return "text" if isinstance(value, str) else "inline"


Ref: TypeAlias = Annotated[Annotated[RefText, tag("text")] | Annotated[Inline, tag("inline")], by(_is_text)]
"""A value that was named, or numbers."""
