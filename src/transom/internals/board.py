"""What a forward is read and written at: asked by the parts of the model as they compute.

The runner posts the actions of all sequences in the batch before a forward. Each knows its own rows, so that
nobody reads or changes the rows of another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from transom.schema.changes import GLOBAL

Floats: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = slice | NDArray[np.intp]
"""Rows of the batch."""

STREAM = ("resid_pre", "resid_post")
"""What goes into a layer and what comes out of it."""


@dataclass(frozen=True, slots=True)
class Where:
    """A named place in the model."""

    point: str
    layer: int = GLOBAL


class Action(Protocol):
    """What one sequence does at a place, to rows of its own."""

    def __call__(self, values: Floats, /) -> None:
        """Read the rows [rows, width], or write them over."""
        ...


@dataclass(frozen=True, slots=True)
class Posted:
    """An action, and where it is done."""

    where: Where
    rows: Rows
    action: Action
    width: int
    """Numbers of a row there. Of attention patterns, each sequence has rows of its own width."""
    writes: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """Rows that come in at a layer, for what lies below is known."""

    layer: int
    rows: slice
    residual: Floats
    """[rows, width]."""


class Board:
    """The actions of the forward at hand. The parts of one model share one board."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        """By layer; their rows are the last ones of the batch, in the same order."""
        self._actions: defaultdict[Where, list[Posted]] = defaultdict(list)
        self._open: set[int] = set()

    def post(self, actions: Iterable[Posted]) -> None:
        """Take the place of what was posted before. Actions at one place are done in their order."""
        self._actions.clear()
        for posted in actions:
            self._actions[posted.where].append(posted)
        self._open = {where.layer for where in self._actions if where.point not in STREAM}
        self.entries = []

    @property
    def active(self) -> bool:
        """Whether anything is posted."""
        return bool(self._actions or self.entries)

    @property
    def places(self) -> list[Where]:
        """Where something is to be done."""
        return list(self._actions)

    def opens(self, layer: int) -> bool:
        """Whether anything is to be done in a layer, between what goes in and what comes out."""
        return layer in self._open

    def wants(self, point: str, layer: int = GLOBAL) -> bool:
        """Whether anything is to be done at a place."""
        return Where(point, layer) in self._actions

    def posted(self, point: str, layer: int) -> list[Posted]:
        """What is to be done at a place, in order."""
        return self._actions.get(Where(point, layer), [])

    def touch(self, point: str, layer: int, values: Floats) -> None:
        """Do what is to be done at a place.

        Args:
            point: its name.
            layer: of the place.
            values: [rows of the batch, width], written over.
        """
        for posted in self._actions.get(Where(point, layer), ()):
            part = values[posted.rows]
            posted.action(part)
            if posted.writes and not isinstance(posted.rows, slice):
                values[posted.rows] = part  # it was a copy
