"""What comes back of a plan: tensors with named axes."""

from __future__ import annotations

import json
import math
import mmap
import operator
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from transom.client import plots

Labels = Mapping[str, Sequence[str]]
"""What the places of an axis are called, such as the tokens of a prompt; not every axis has labels."""

_TYPES = {"F32": "<f4", "I32": "<i4"}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Numbers, what their axes are, and what the places of an axis are called where that is known.

    numpy takes it wherever it takes an array, and gives arrays back. Sums, differences, products and
    quotients of two tensors go by the names of axes: one may lack axes that the other has.
    """

    data: NDArray[Any]
    axes: tuple[str, ...]
    labels: Labels = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.data.shape

    def at(self, **places: int | slice) -> Tensor:
        """The part at some places of named axes, such as `at(layer=5, pos=-1)`.

        A number takes its axis away, a slice shortens it. Places are counted along the axis: after a read
        of the positions 3 and 8, `pos=1` is position 8.

        Raises:
            KeyError: there is no such axis.
        """
        for axis in places:
            self._index(axis)
        chosen = tuple(places.get(axis, slice(None)) for axis in self.axes)
        kept = [axis for axis in self.axes if not isinstance(places.get(axis), int)]
        labels = {
            axis: tuple(texts)[places[axis]] if axis in places else texts
            for axis, texts in self.labels.items()
            if axis in kept
        }
        return Tensor(np.asarray(self.data[chosen]), tuple(kept), labels)

    def named(self, **labels: Sequence[str]) -> Tensor:
        """The same, with what the places of some axes are called.

        Raises:
            KeyError: there is no such axis.
            ValueError: an axis is not as long as there are labels.
        """
        for axis, texts in labels.items():
            if len(texts) != self.shape[self._index(axis)]:
                raise ValueError(f"{len(texts)} labels for the {self.shape[self._index(axis)]} of {axis}")
        return Tensor(self.data, self.axes, {**self.labels, **{k: tuple(v) for k, v in labels.items()}})

    def renamed(self, **axes: str) -> Tensor:
        """The same, with other names for some axes: `renamed(pos="query", unit="key")`."""
        for axis in axes:
            self._index(axis)
        labels = {axes.get(axis, axis): texts for axis, texts in self.labels.items()}
        return Tensor(self.data, tuple(axes.get(axis, axis) for axis in self.axes), labels)

    def transposed(self, *axes: str) -> Tensor:
        """The same with its axes in this order."""
        return Tensor(self.data.transpose([self._index(axis) for axis in axes]), axes, self.labels)

    def sum(self, *axes: str) -> Tensor:
        """The sum along some axes; along all where none is named."""
        return self._along(axes, np.sum)

    def mean(self, *axes: str) -> Tensor:
        """The mean along some axes; along all where none is named."""
        return self._along(axes, np.mean)

    def norm(self, axis: str) -> Tensor:
        """The Euclidean norm along an axis."""
        return self._along((axis,), lambda data, axis: np.linalg.norm(data, axis=axis[0]))

    def plot(self, title: str = "") -> Any:  # noqa: ANN401
        """An altair chart: a heat map of two axes, a line of one. Axes of length 1 are not counted.

        Raises:
            ValueError: it has other axes too; choose a place on them with `at`.
            ModuleNotFoundError: altair is not installed; it comes with `pip install 'transom[plot]'`.
        """
        return plots.chart(self.data, self.axes, self.labels, title)

    def _index(self, axis: str) -> int:
        if axis not in self.axes:
            raise KeyError(f"no axis {axis}; there are {', '.join(self.axes) or 'none'}")
        return self.axes.index(axis)

    def _along(self, axes: tuple[str, ...], reduce: Callable[..., Any]) -> Tensor:
        gone = axes or self.axes
        data = reduce(self.data, axis=tuple(self._index(axis) for axis in gone))
        labels = {axis: texts for axis, texts in self.labels.items() if axis not in gone}
        return Tensor(np.asarray(data), tuple(axis for axis in self.axes if axis not in gone), labels)

    def _with(self, other: object, combine: Callable[[Any, Any], Any]) -> Tensor:
        if not isinstance(other, Tensor):
            return Tensor(np.asarray(combine(self.data, other)), self.axes, self.labels)
        longer, shorter = (self, other) if len(self.axes) >= len(other.axes) else (other, self)
        if [axis for axis in longer.axes if axis in shorter.axes] != list(shorter.axes):
            raise ValueError(
                f"the axes {', '.join(shorter.axes)} are not among {', '.join(longer.axes)} in this order"
            )
        data = combine(_spread(self, longer.axes), _spread(other, longer.axes))
        return Tensor(np.asarray(data), longer.axes, {**shorter.labels, **longer.labels})

    def __add__(self, other: object) -> Tensor:
        return self._with(other, operator.add)

    def __sub__(self, other: object) -> Tensor:
        return self._with(other, operator.sub)

    def __mul__(self, other: object) -> Tensor:
        return self._with(other, operator.mul)

    def __truediv__(self, other: object) -> Tensor:
        return self._with(other, operator.truediv)

    def __rsub__(self, other: object) -> Tensor:
        return -self + other

    def __neg__(self) -> Tensor:
        return self * -1

    __radd__, __rmul__ = __add__, __mul__

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __float__(self) -> float:
        return float(self.data.item())

    def __int__(self) -> int:
        return int(self.data.item())

    def __str__(self) -> str:
        if not self.axes:
            return str(self.data.item())
        shape = " x ".join(f"{axis} {size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"{shape}\n{self.data}"


def _spread(tensor: Tensor, axes: tuple[str, ...]) -> NDArray[Any]:
    spread: NDArray[Any] = tensor.data[tuple(slice(None) if axis in tensor.axes else None for axis in axes)]
    return spread


class Traced(Mapping[str, Tensor]):
    """The values that a plan returned, by name; by the end of it too, where only one name ends so.

    Args:
        record: of the plan; `Client.replay` carries it out again.
        tensors: by name.
        content: the file of them, as safetensors; a large one is in memory once, or stays on disk and is
            read as it is used. What is changed in a tensor of it is changed in it.
        deployment: digest of what computed them; None where only the file is at hand, which does not say.
    """

    def __init__(
        self,
        record: str,
        tensors: Mapping[str, Tensor],
        content: bytes | memoryview | mmap.mmap,
        deployment: str | None = None,
    ) -> None:
        self.record = record
        self.content = content
        self.deployment = deployment
        self._tensors = tensors

    @property
    def names(self) -> tuple[str, ...]:
        """What was returned, such as `clean.lens.ids`."""
        return tuple(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        ending = [each for each in self._tensors if each.endswith(f".{name}")]
        if len(ending) != 1:
            raise KeyError(f"{name} names {'several' if ending else 'none'} of {', '.join(self._tensors)}")
        return self._tensors[ending[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """From the body of a reply, or a file that was kept of one.

        Raises:
            ValueError: it is no such body.
        """
        return cls._read(content, bytearray(content))

    @classmethod
    def over(cls, content: memoryview) -> Self:
        """The same over memory that nobody else writes to.

        Raises:
            ValueError: it is no such body.
        """
        return cls._read(content, content)

    @classmethod
    def open(cls, file: str | Path | BinaryIO) -> Self:
        """From a file, of which no more is in memory than is used; what is changed is not changed there.

        Raises:
            ValueError: it is no result of a plan.
        """
        if isinstance(file, str | Path):
            with Path(file).open("rb") as opened:
                return cls.open(opened)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return cls._read(content, content)

    @classmethod
    def _read(
        cls, content: bytes | memoryview | mmap.mmap, numbers: bytearray | memoryview | mmap.mmap
    ) -> Self:
        try:
            (length,) = struct.unpack("<Q", content[:8])
            header = json.loads(bytes(content[8 : 8 + length]))
            about = header.pop("__metadata__")
            tensors = {
                name: Tensor(
                    _array(said, numbers, 8 + length), tuple(filter(None, about[f"axes.{name}"].split(",")))
                )
                for name, said in header.items()
            }
            return cls(about["record"], tensors, content)
        except (KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
            raise ValueError(f"no result of a plan: {error}") from error

    def said_by(self, headers: Mapping[str, str]) -> Traced:
        """The same, with what the headers of its reply say."""
        return self.computed_by(headers.get("x-transom-deployment"))

    def computed_by(self, deployment: str | None) -> Traced:
        """The same, with what computed it."""
        return Traced(self.record, self._tensors, self.content, deployment)


def _array(said: Mapping[str, Any], numbers: bytearray | memoryview | mmap.mmap, start: int) -> NDArray[Any]:
    """A tensor of a file whose numbers begin at `start`.

    Raises:
        ValueError, KeyError, TypeError: it is not there.
    """
    begin, end = said["data_offsets"]
    shape, kind = tuple(said["shape"]), np.dtype(_TYPES[said["dtype"]])
    if begin < 0 or end - begin != kind.itemsize * math.prod(shape):
        raise ValueError("a tensor has other bytes than its shape")
    if begin == end:
        return np.empty(shape, kind)
    return np.frombuffer(numbers, kind, math.prod(shape), start + begin).reshape(shape)
