"""What an experiment is, and how what two parties found is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.equality.plain import Plain

Array = NDArray[Any]
Found = dict[str, Array]

LIMIT = 1e-4
"""Most that two numbers may differ."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Requests to a server, and the same by plain PyTorch.

    Tokens are integers, and have to be the same. Other numbers may differ by `LIMIT`: in parts of the largest
    number of their vector where that is above 1, and in some values as they are.
    """

    key: str
    """Its name in `words`."""
    requests: list[tuple[str, dict[str, Any]]]
    """Paths and bodies, without the model."""
    reference: Callable[[Plain], Found]
    """What should be found, by the names that `conclude` gives."""
    conclude: Callable[[Found], Found] = lambda found: found
    """What a researcher makes of the values that came back."""
    absolute: tuple[str, ...] = ()
    """How the names of values end that may differ by no more than `LIMIT`, however large they are."""

    def compare(self, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Difference:
        """How far what was concluded is from what should be found.

        Raises:
            ValueError: names, shapes or tokens differ, or a number is none.
        """
        if ours.keys() != theirs.keys():
            raise ValueError(f"they do not have the same values: {sorted(ours.keys() ^ theirs.keys())}")
        parts = {name: _between(name, ours[name], theirs[name]) for name in ours}
        absolute = [part.largest for name, part in parts.items() if name.endswith(self.absolute)]
        return Difference(
            sum(part.numbers for part in parts.values()),
            max(part.largest for part in parts.values()),
            max(part.scaled for part in parts.values()),
            max(absolute, default=0.0),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two findings are from each other."""

    numbers: int
    """How many were compared."""
    largest: float
    """Of all, as it is."""
    scaled: float
    """The largest, in parts of the largest number of its vector (the last axis) where that is above 1."""
    absolute: float = 0.0
    """The largest of those values that are held against the limit as they are."""

    @property
    def is_small(self) -> bool:
        """Whether it is within the limit."""
        return max(self.scaled, self.absolute) <= LIMIT


def _between(name: str, ours: Array, theirs: Array) -> Difference:
    if ours.shape != theirs.shape:
        raise ValueError(f"{name} has shape {ours.shape}, and by plain PyTorch {theirs.shape}")
    if ours.dtype.kind == "i":
        if (differing := int((ours != theirs).sum())) > 0:
            raise ValueError(f"{name}: {differing} of {ours.size} tokens differ")
        return Difference(ours.size, 0.0, 0.0)
    if not np.isfinite(ours).all():
        raise ValueError(f"{name} has something that is no number")
    apart = np.abs(ours.astype(np.float64) - theirs)
    scale = np.maximum(1.0, np.abs(theirs).max(axis=-1, keepdims=True))
    return Difference(ours.size, float(apart.max()), float((apart / scale).max()))


def is_same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether two answers have the same names, types, shapes and bytes."""
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((one[name], other[name]) for name in one)
    )
