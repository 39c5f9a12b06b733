"""The tensors of a result's file (https://huggingface.co/docs/safetensors), against those on record."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

from transom.errors import NotVerified
from transom.schema.record import RecordView

_MOST_HEADER = 100_000_000
_CHUNK = 1 << 20
_TYPES = {"F32": "float32", "I32": "int32"}

Listed = dict[str, list[Any]]
"""By name: type, shape, axes, digest."""


class _Header(NamedTuple):
    record: str
    tensors: list[tuple[str, list[Any], int, int]]
    """Name; type, shape and axes; first byte and the one behind the last; in the order of the file."""


def check_result(file: BinaryIO, size: int, view: RecordView) -> int:
    """Pass a file with exactly the tensors that are on record; how many there are.

    Args:
        file: read once from its beginning, a little at a time.
        size: its bytes.
        view: the record, whose openings are already trusted.

    Raises:
        NotVerified: it is of another record, or has other tensors.
    """
    header = _read_header(file, size)
    if header.record != view.id:
        raise NotVerified(f"the result is of {header.record[:80]!r}")
    on_record = _listed(view)
    found = {name: [*said, _digest(file, end - start)] for name, said, start, end in header.tensors}
    if wrong := sorted(found.keys() ^ on_record.keys()):
        raise NotVerified(f"{wrong[0]!r} is in the result or on record, and not in both")
    if wrong := [name for name, said in found.items() if said != on_record[name]]:
        raise NotVerified(f"the tensor {wrong[0]!r} is not the one on record")
    return len(found)


def record_of(file: BinaryIO, size: int) -> str:
    """The record that a result says it is of.

    Raises:
        NotVerified: it is no result of a plan.
    """
    return _read_header(file, size).record


def _listed(view: RecordView) -> Listed:
    opening = None if view.openings is None else view.openings.get("tensors")
    try:
        return {name: said for name, *said in json.loads(opening["json"])} if opening else {}
    except (ValueError, TypeError, KeyError):
        raise NotVerified("the record's list of tensors cannot be read") from None


def _read_header(file: BinaryIO, size: int) -> _Header:
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, _MOST_HEADER):
            raise ValueError("its header is longer than it")  # noqa: TRY301  # said once, below
        header = json.loads(file.read(length))
        about = header.pop("__metadata__")
        tensors = sorted(
            (_tensor(name, said, about) for name, said in header.items()), key=lambda each: each[2:]
        )
        _check_together(tensors, size - 8 - length)
        return _Header(str(about["record"]), tensors)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        OverflowError,
        RecursionError,
    ) as error:
        raise NotVerified(f"it is no result of a plan: {str(error)[:200]}") from None


def _tensor(name: str, said: Mapping[str, Any], about: Mapping[str, str]) -> tuple[str, list[Any], int, int]:
    start, end = said["data_offsets"]
    shape = list(said["shape"])
    if end - start != 4 * math.prod(shape):
        raise ValueError(f"{name!r} has other bytes than its shape")
    axes = [axis for axis in about[f"axes.{name}"].split(",") if axis]
    return name, [_TYPES[said["dtype"]], shape, axes], start, end


def _check_together(tensors: list[tuple[str, list[Any], int, int]], size: int) -> None:
    """Every byte belongs to one tensor."""
    at = 0
    for name, _, start, end in tensors:
        if start != at or end < start:
            raise ValueError(f"{name!r} does not begin where the one before ends")
        at = end
    if at != size:
        raise ValueError("there are bytes behind the last tensor")


def _digest(file: BinaryIO, size: int) -> str:
    digest = sha256()
    while size > 0:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise NotVerified("the result ends in the middle of a tensor")
        digest.update(chunk)
        size -= len(chunk)
    return f"sha256:{digest.hexdigest()}"
