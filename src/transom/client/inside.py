"""What comes back of a plan: tensors with named axes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load


@dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers, and what their axes are."""

    data: NDArray[Any]
    axes: tuple[str, ...]

    def at(self, **places: int) -> NDArray[Any]:
        """The numbers at some places of named axes, such as `at(layer=5, pos=-1)`.

        Raises:
            KeyError: there is no such axis.
        """
        unknown = places.keys() - set(self.axes)
        if unknown:
            raise KeyError(f"no axis {', '.join(sorted(unknown))}; there are {', '.join(self.axes)}")
        found: NDArray[Any] = self.data[tuple(places.get(axis, slice(None)) for axis in self.axes)]
        return found


class Traced(Mapping[str, Tensor]):
    """The values that a plan returned, by name.

    Args:
        record: of the plan; `Client.replay` carries it out again.
        tensors: by name.
        content: the file of them, as safetensors.
        deployment: digest of what computed them; None where only the file is at hand, which does not say.
    """

    def __init__(
        self, record: str, tensors: Mapping[str, Tensor], content: bytes, deployment: str | None = None
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
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @classmethod
    def parse(cls, content: bytes) -> Traced:
        """From the body of a reply, or a file that was kept of one.

        Raises:
            ValueError: it is no such body.
        """
        try:
            arrays = load(content)
            (length,) = struct.unpack("<Q", content[:8])
            about = json.loads(content[8 : 8 + length])["__metadata__"]
            tensors = {
                name: Tensor(np.asarray(array), tuple(filter(None, about[f"axes.{name}"].split(","))))
                for name, array in arrays.items()
            }
            return cls(about["record"], tensors, content)
        except (SafetensorError, KeyError, struct.error) as error:
            raise ValueError(f"no result of a plan: {error}") from error

    def said_by(self, headers: Mapping[str, str]) -> Traced:
        """The same, with what the headers of its reply say."""
        return Traced(self.record, self._tensors, self.content, headers.get("x-transom-deployment"))
