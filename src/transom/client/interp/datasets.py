"""A folder of activations: shards as safetensors, and an index that says what is in them."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save

from transom.errors import Conflict, InvalidRequest

INDEX = "index.json"

ROW_COLUMNS = ("prompt", "pos", "token")
"""What is known of a row beside its activations: number of its prompt, position there, token id."""


class Shard(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True)

    file: str
    prompts: tuple[int, int]
    """The first, and the first that is not in it."""
    rows: int
    record: str
    """Of the plan that gave it; it replays."""


class Index(BaseModel):
    """What a folder holds, and of what it is made."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    model: str
    deployment: str | None = None
    reads: dict[str, str]
    """Points by name."""
    pos: str | int | list[int]
    axes: dict[str, list[str]] = {}
    """Of each name; the first is `row`."""
    prompts: int
    """How many there are in all."""
    prompts_sha256: str
    shards: tuple[Shard, ...] = ()

    @property
    def done(self) -> int:
        """How many prompts are in shards."""
        return self.shards[-1].prompts[1] if self.shards else 0


class Activations:
    """A dataset of activations in a folder, as `collect` leaves it. Rows are positions, in order of prompts.

    Args:
        folder: where it is.

    Raises:
        InvalidRequest: there is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.index = Index.model_validate_json((self.folder / INDEX).read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidRequest(f"{folder} holds no activations: {error}", param="folder") from error

    @property
    def names(self) -> tuple[str, ...]:
        """What was read, by name."""
        return tuple(self.index.reads)

    @property
    def complete(self) -> bool:
        """Whether every prompt is in it; `collect` goes on where it is not."""
        return self.index.done == self.index.prompts

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.index.shards)

    def shards(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Shard after shard: activations by name, and the columns `prompt`, `pos` and `token`."""
        for shard in self.index.shards:
            yield load_file(self.folder / shard.file)

    def load(self, name: str) -> NDArray[Any]:
        """All rows of a name or a column, in memory.

        Raises:
            KeyError: nothing is called so.
        """
        self._check(name)
        found = []
        for shard in self.index.shards:
            with safe_open(self.folder / shard.file, "np") as tensors:
                found.append(tensors.get_tensor(name))
        return np.concatenate(found)

    def torch(self, name: str) -> Any:  # noqa: ANN401
        """A `torch.utils.data.Dataset` of the rows of a name, which reads them as they are asked for.

        Raises:
            KeyError: nothing is called so.
            ModuleNotFoundError: torch is not installed; nothing else here needs it.
        """
        self._check(name)
        kind: Any = import_module("torch.utils.data").Dataset
        files = [self.folder / shard.file for shard in self.index.shards]
        ends = list(accumulate(shard.rows for shard in self.index.shards))

        class Rows(kind):  # type: ignore[misc]
            """One row after the other."""

            def __init__(self) -> None:
                opened: list[Any] = [safe_open(file, "pt") for file in files]
                self._slices = [each.get_slice(name) for each in opened]

            def __len__(self) -> int:
                return ends[-1] if ends else 0

            def __getitem__(self, row: int) -> Any:  # noqa: ANN401
                if not -len(self) <= row < len(self):
                    raise IndexError(row)
                place = row % len(self)
                shard = bisect_right(ends, place)
                return self._slices[shard][place - (ends[shard - 1] if shard else 0)]

        return Rows()

    def _check(self, name: str) -> None:
        if name not in (*self.names, *ROW_COLUMNS):
            raise KeyError(f"no {name}; there are {', '.join((*self.names, *ROW_COLUMNS))}")


class Folder:
    """Writes such a folder, shard after shard; what was interrupted goes on after its last shard."""

    def __init__(self, folder: str | Path, wanted: Index) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.index = wanted
        if (self._folder / INDEX).exists():
            there = Activations(self._folder).index
            same = {"model", "reads", "pos", "prompts", "prompts_sha256"}
            if there.model_dump(include=same) != wanted.model_dump(include=same):
                raise Conflict(f"{folder} holds other activations; choose another folder.", param="folder")
            self.index = there

    def add(
        self,
        arrays: Mapping[str, NDArray[Any]],
        axes: Mapping[str, tuple[str, ...]],
        *,
        prompts: tuple[int, int],
        record: str,
        deployment: str | None,
    ) -> None:
        """Keep one more shard; it is whole on disk before the index names it.

        Raises:
            Conflict: it was computed by another deployment than the shards before it.
        """
        if self.index.shards and self.index.deployment != deployment:
            message = "The server has another deployment now than when this folder was begun; begin another."
            raise Conflict(message, param="folder")
        file = f"shard-{len(self.index.shards):05d}.safetensors"
        rows = len(arrays[ROW_COLUMNS[0]])
        self._write(file, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        shard = Shard(file=file, prompts=prompts, rows=rows, record=record)
        named = {name: list(each) for name, each in axes.items()}
        more = {"shards": (*self.index.shards, shard), "axes": named, "deployment": deployment}
        self.index = self.index.model_copy(update=more)
        self._write(INDEX, json.dumps(self.index.model_dump(mode="json"), indent=1).encode())

    def _write(self, name: str, content: bytes) -> None:
        beside = self._folder / f"{name}.part"
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._folder / name)
