"""A result that waits to be fetched: its tensors, and its file in parts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, NonNegativeInt

from transom.schema.record import Read


class ListedTensor(Read):
    """A tensor of the file."""

    dtype: Literal["float32", "int32"]
    shape: tuple[NonNegativeInt, ...]
    axes: tuple[str, ...]
    sha256: str = Field(description="Of its numbers, as they lie in the file")


class ListedPart(Read):
    """Bytes of the file, from `start` on."""

    start: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str


class ListedFile(Read):
    """The file as a whole, as safetensors."""

    url: str = Field(description="Path that it is fetched from; byte ranges are answered")
    bytes: NonNegativeInt


class Manifest(Read):
    """What came of a plan whose result is fetched apart."""

    id: str = Field(description="Of its record")
    deployment: str
    tensors: dict[str, ListedTensor]
    file: ListedFile
    parts: tuple[ListedPart, ...] = Field(description="Of the file, one behind the other")
    expires: datetime = Field(description="Until when the file is kept")
