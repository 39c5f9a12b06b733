"""What an artifact may hold: a safetensors file of finite numbers, in which nothing is left to chance.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the length of a header in
JSON, the header, then the numbers. Everything that it says is checked before anything is made of it; nothing
is ever executed, and no size in it is believed that the file does not have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from transom.errors import InvalidRequest
from transom.schema.artifacts import ArtifactDType
from transom.schema.plans.refs import is_tensor_name
from transom.schema.plans.tensors import MAX_AXES

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 1024
_LENGTH_BYTES = 8
_NAMES: dict[str, ArtifactDType] = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
}
_ITEMS: dict[ArtifactDType, str] = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int8": "i1",
    "uint8": "u1",
    "int16": "<i2",
    "uint16": "<u2",
}
assert _ITEMS.keys() == set(get_args(ArtifactDType))  # noqa: S101

ReadBytes = Callable[[int, int], Iterator[bytes]]
"""Bytes of a file from one place to another, in pieces of any length."""


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor, and where in the file its numbers lie."""

    dtype: ArtifactDType
    shape: tuple[int, ...]
    start: int
    stop: int

    def numbers(self, read: ReadBytes) -> Iterator[NDArray[np.float32]]:
        """Its numbers in row-major order as float32, in pieces."""
        item = np.dtype(_ITEMS[self.dtype])
        left = b""
        for piece in read(self.start, self.stop):
            whole = left + piece
            used = len(whole) - len(whole) % item.itemsize
            left = whole[used:]
            yield _as_float32(np.frombuffer(whole[:used], item), self.dtype)


def _as_float32(numbers: NDArray[Any], dtype: ArtifactDType) -> NDArray[np.float32]:
    if dtype == "bfloat16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def check(read: ReadBytes, size: int) -> dict[str, Located]:
    """The tensors of a file that may be an artifact, by name.

    Args:
        read: its bytes.
        size: how many it has.

    Raises:
        InvalidRequest: it is none; the message says what is wrong, and with which tensor.
    """
    tensors = _header(read, size)
    for name, tensor in tensors.items():
        before = 0
        for piece in tensor.numbers(read):
            finite = np.isfinite(piece)
            if not finite.all():
                index = np.unravel_index(before + int(np.argmin(finite)), tensor.shape)
                raise _wrong(
                    f"{name} holds a number that is not finite, at {[int(i) for i in index]}; replace it",
                    name,
                )
            before += piece.size
    return tensors


def _header(read: ReadBytes, size: int) -> dict[str, Located]:
    if size < _LENGTH_BYTES:
        raise _wrong(f"it has {size} bytes, and its first {_LENGTH_BYTES} give the header's length")
    length = int.from_bytes(b"".join(read(0, _LENGTH_BYTES)), "little")
    if length > MAX_HEADER_BYTES:
        raise _wrong(f"its header would have {length} bytes; {MAX_HEADER_BYTES} are read")
    begin = _LENGTH_BYTES + length
    if begin > size:
        raise _wrong(f"its header would have {length} bytes, and the file ends before that")
    header = _parsed(b"".join(read(_LENGTH_BYTES, begin)))
    _check_metadata(header.pop("__metadata__", {}))
    if not 1 <= len(header) <= MAX_TENSORS:
        raise _wrong(f"it has {len(header)} tensors; 1 to {MAX_TENSORS} are taken")
    tensors = {name: _located(name, about, begin) for name, about in header.items()}
    _check_whole(tensors, begin, size)
    return tensors


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"its header is no JSON: {error}"[:200]) from None
    if not isinstance(header, dict):
        raise _wrong("its header is no JSON object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _check_metadata(metadata: object) -> None:
    texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if not texts:
        raise _wrong("__metadata__ holds something else than texts")


def _located(name: str, about: object, begin: int) -> Located:
    if not is_tensor_name(name):
        raise _wrong(
            f"no reference could name its tensor {name[:80]!r}: write letters, digits and underscores, "
            "joined by single dots or hyphens, at most 128"
        )
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise _wrong(f"{name} has not just dtype, shape and data_offsets", name)
    dtype = _NAMES.get(about["dtype"]) if isinstance(about["dtype"], str) else None
    if dtype is None:
        raise _wrong(
            f"{name} is of type {str(about['dtype'])[:20]}, and plans compute in float32, which need not "
            f"hold such numbers: convert it to one of {', '.join(_ITEMS)}",
            name,
        )
    shape, offsets = about["shape"], about["data_offsets"]
    if not _are_counts(shape) or not 1 <= len(shape) <= MAX_AXES or 0 in shape:
        raise _wrong(f"the shape of {name} is not 1 to {MAX_AXES} lengths, each 1 or more", name)
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _wrong(f"the data_offsets of {name} are not two places", name)
    first, last = offsets
    needed = math.prod(shape) * np.dtype(_ITEMS[dtype]).itemsize
    if last - first != needed:
        raise _wrong(f"{name} has {last - first} bytes, and {dtype} of its shape takes {needed}", name)
    return Located(dtype, tuple(shape), begin + first, begin + last)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_whole(tensors: Mapping[str, Located], begin: int, size: int) -> None:
    """Pass a file that its tensors fill, one after the other: every byte of it belongs to one."""
    at = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start != at:
            raise _wrong(f"{name} does not begin where the tensor before it ends", name)
        at = tensor.stop
    if at != size:
        raise _wrong(f"its tensors end at byte {at}, and the file at {size}")


def _wrong(what: str, tensor: str | None = None) -> InvalidRequest:
    param = None if tensor is None else f"tensors.{tensor}"
    return InvalidRequest(f"This is no artifact: {what}.", param=param, code="invalid_artifact")
