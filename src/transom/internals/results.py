"""The result of a program as a file: safetensors, written beside the engine's loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from transom.internals.values import Value
from transom.schema.program import DType, TensorInfo, Traced


class Writer:
    """Writes results one after the other, in a thread of its own.

    Args:
        done: told the end of a program, from that thread, once its file is there.
    """

    def __init__(self, done: Callable[[Traced], None]) -> None:
        self._done = done
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")

    def write(self, file: Path, values: Mapping[str, Value], end: Traced) -> None:
        """Write the values and then tell."""
        self._thread.submit(self._write, file, values, end)

    def _write(self, file: Path, values: Mapping[str, Value], end: Traced) -> None:
        try:
            plain = {name: np.asarray(value.array, order="C") for name, value in values.items()}
            infos = tuple(_info(name, array, values[name].axes) for name, array in plain.items())
            partial = file.with_suffix(".partial")
            about = {f"axes.{info.name}": ",".join(info.axes) for info in infos}
            save_file(plain, partial, about | {"record": end.trace_id})
            partial.rename(file)
        except Exception as error:  # noqa: BLE001  # whoever waits for the file must hear of it
            self._done(replace(end, error=f"the result could not be written: {error}"))
        else:
            self._done(replace(end, tensors=infos))


def _info(name: str, array: NDArray[Any], axes: tuple[str, ...]) -> TensorInfo:
    dtype: DType = "int32" if array.dtype == np.int32 else "float32"
    return TensorInfo(
        name=name, dtype=dtype, shape=array.shape, axes=axes, sha256=sha256(array.data).hexdigest()
    )
