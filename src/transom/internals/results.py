"""The result of a program as a file: safetensors, written piece by piece beside the engine's loop.

The format (https://huggingface.co/docs/safetensors, "Format"): the length of the header in 8 bytes,
little-endian; the header, JSON; then the numbers of each tensor, one behind the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from transom.errors import PlanFailed
from transom.internals.values import Value
from transom.schema.program import DType, FilePart, TensorInfo, Traced

_BLOCK = 4 << 20
"""Bytes that are written at once."""

_ALIGNED = 8
"""The numbers begin at a multiple of so many bytes."""

_TYPES: dict[DType, str] = {"float32": "F32", "int32": "I32"}


class Writer:
    """Writes results one after the other, in a thread of its own.

    Args:
        done: told the end of a program, from that thread, once its file is there, or will not be.
    """

    def __init__(self, done: Callable[[Traced], None]) -> None:
        self._done = done
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")

    def write(
        self,
        file: Path,
        values: Mapping[str, Value],
        end: Traced,
        *,
        part_bytes: int = 0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write the values and then tell. See `save`; `is_wanted` is asked again and again."""
        self._thread.submit(self._write, file, values, end, part_bytes, is_wanted)

    def _write(
        self,
        file: Path,
        values: Mapping[str, Value],
        end: Traced,
        part_bytes: int,
        is_wanted: Callable[[], bool],
    ) -> None:
        try:
            tensors, parts = save(file, values, end.trace_id, part_bytes, is_wanted)
        except OSError as error:
            reason = f"the result could not be written: {error.strerror or error}"
            self._done(replace(end, error=reason, is_full=True))
        except Exception as error:  # noqa: BLE001  # whoever waits for the file must hear of it
            self._done(replace(end, error=f"the result could not be written: {error}"))
        else:
            self._done(replace(end, tensors=tensors, parts=parts))


def save(
    file: Path,
    values: Mapping[str, Value],
    record: str,
    part_bytes: int = 0,
    is_wanted: Callable[[], bool] = lambda: True,
) -> tuple[tuple[TensorInfo, ...], tuple[FilePart, ...]]:
    """Write values as one file, which is there whole or not at all, and digest them on the way.

    Args:
        file: where.
        values: by name; float32 or int32.
        record: name of the program, which the file tells.
        part_bytes: size of the parts of the file that are digested too; 0 for none.
        is_wanted: whether to go on.

    Raises:
        OSError: it cannot be written.
        PlanFailed: it was not to go on.
    """
    partial = file.with_suffix(".partial")
    try:
        # To digest takes as long as to write, and neither holds the interpreter.
        with partial.open("wb") as out, ThreadPoolExecutor(1, thread_name_prefix="digests") as other:
            digests = [other.submit(_digest, value.array, is_wanted) for value in values.values()]
            parts = _Parts(out, part_bytes)
            parts.write(_header(values, record))
            for value in values.values():
                _write(value.array, parts, is_wanted)
            found = zip(values.items(), digests, strict=True)
            tensors = tuple(_told(name, value, digest.result()) for (name, value), digest in found)
        partial.rename(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return tensors, parts.found


def _header(values: Mapping[str, Value], record: str) -> bytes:
    about = {f"axes.{name}": ",".join(value.axes) for name, value in values.items()}
    header: dict[str, object] = {"__metadata__": about | {"record": record}}
    at = 0
    for name, value in values.items():
        end = at + value.array.nbytes
        kind = _TYPES[_dtype(value)]
        header[name] = {"dtype": kind, "shape": value.array.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _write(array: NDArray[Any], parts: _Parts, is_wanted: Callable[[], bool]) -> None:
    for block in _wanted(array, is_wanted):
        parts.write(block.data)


def _digest(array: NDArray[Any], is_wanted: Callable[[], bool]) -> str:
    digest = sha256()
    for block in _wanted(array, is_wanted):
        digest.update(block.data)
    return digest.hexdigest()


def _told(name: str, value: Value, digest: str) -> TensorInfo:
    return TensorInfo(name=name, dtype=_dtype(value), shape=value.array.shape, axes=value.axes, sha256=digest)


def _wanted(array: NDArray[Any], is_wanted: Callable[[], bool]) -> Iterator[NDArray[Any]]:
    """The same as `_blocks`, as long as somebody waits for them.

    Raises:
        PlanFailed: nobody does.
    """
    for block in _blocks(array):
        if not is_wanted():
            raise PlanFailed("nobody waits for it")
        yield block


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The numbers of an array in order, some at a time; what lies apart is copied, no more than that."""
    if array.flags.c_contiguous:
        flat, count = array.reshape(-1), _BLOCK // array.itemsize
        yield from (flat[start : start + count] for start in range(0, len(flat), count))
    elif array.nbytes <= _BLOCK or array.ndim == 1:
        yield np.ascontiguousarray(array)
    else:
        for row in array:
            yield from _blocks(row)


def _dtype(value: Value) -> DType:
    return "int32" if value.array.dtype == np.int32 else "float32"


class _Parts:
    """Writes a file, and digests each so many bytes of it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._ended: list[FilePart] = []
        self._digest, self._taken = sha256(), 0

    @property
    def found(self) -> tuple[FilePart, ...]:
        """The parts of all that was written, the last one as long as it is."""
        if not self._taken:
            return tuple(self._ended)
        return (*self._ended, FilePart(bytes=self._taken, sha256=self._digest.hexdigest()))

    def write(self, block: bytes | memoryview) -> None:
        """Write what comes next."""
        self._file.write(block)
        left = memoryview(block).cast("B") if self._size else memoryview(b"")
        while left:
            fitting = left[: self._size - self._taken]
            self._digest.update(fitting)
            self._taken += len(fitting)
            left = left[len(fitting) :]
            if self._taken == self._size:
                self._ended.append(FilePart(bytes=self._size, sha256=self._digest.hexdigest()))
                self._digest, self._taken = sha256(), 0
