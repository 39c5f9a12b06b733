"""What one sequence reads and writes inside the model, and what it has read so far."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from transom.errors import PlanFailed
from transom.internals.board import Floats, Posted, Rows, Where
from transom.internals.edits import Edit
from transom.internals.restart import Pages, Restart

LARGEST = 1e12
"""Largest number that a write may leave. Up to there nothing that a model computes from it can overflow into
what is no number, and would stay in the cache and reach whoever has the page next."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which numbers of a row, in groups: heads, or the whole row as one."""

    groups: int
    index: NDArray[np.intp] | None = None
    """Of groups * width columns; None for all, as they lie."""

    def of(self, rows: Floats) -> Floats:
        """[rows, all columns] to [rows, groups, width]; a view where all are wanted."""
        chosen = rows if self.index is None else rows[:, self.index]
        return chosen.reshape(rows.shape[0], self.groups, -1)

    def put(self, rows: Floats, values: Floats) -> None:
        """Write [rows, groups, width] back into the rows."""
        rows[:, slice(None) if self.index is None else self.index] = values.reshape(rows.shape[0], -1)


@dataclass(frozen=True, slots=True)
class Site:
    """A place, at positions of one sequence."""

    where: Where
    positions: Sequence[int]
    """Rising."""
    columns: Columns
    row_width: int
    """All numbers of a row there, chosen or not."""

    def within(self, start: int, end: int) -> slice:
        """Which of the positions lie in a chunk of the sequence."""
        return slice(bisect_left(self.positions, start), bisect_left(self.positions, end))

    def rows(self, those: slice, start: int, at: int) -> Rows:
        """The rows of positions, where the chunk from `start` lies at row `at` of the batch."""
        found = self.positions[those]
        first, last = found[0], found[-1]
        if last - first + 1 == len(found):
            return slice(first - start + at, last + 1 - start + at)
        return np.asarray(found, np.intp) - start + at


class Read:
    """A site whose values are kept.

    Args:
        site: where and when.
        values: where they are kept, [positions, groups, width].
    """

    def __init__(self, site: Site, values: Floats) -> None:
        self.site = site
        self.values = values

    def __call__(self, those: slice, rows: Floats) -> None:
        """Keep what the rows of those positions hold."""
        self.values[those] = self.site.columns.of(rows)


class Write:
    """A site whose values are changed.

    Args:
        site: where and when.
        edit: to what.
    """

    def __init__(self, site: Site, edit: Edit) -> None:
        self.site = site
        self.excessive = False
        """Whether it would have made a number larger than LARGEST, or no number, and so did nothing."""
        self._edit = edit

    def __call__(self, those: slice, rows: Floats) -> None:
        """Change the rows of those positions."""
        columns = self.site.columns
        with np.errstate(over="ignore", invalid="ignore"):
            changed = self._edit(columns.of(rows), np.arange(those.start, those.stop))
        if np.abs(changed).max(initial=0) <= LARGEST:
            columns.put(rows, changed)
        else:
            self.excessive = True


class Taps:
    """All that one sequence does inside; at one place, it writes before it reads."""

    def __init__(
        self,
        reads: Sequence[Read],
        writes: Sequence[Write],
        *,
        restart: Restart | None = None,
        keeps_pages: bool = False,
    ) -> None:
        self.reads = reads
        self.writes = writes
        self.restart = restart
        """Where the sequence begins, if not at the beginning."""
        self.keeps_pages = keeps_pages
        """Whether others will begin in the middle of this one."""
        self.pages: Pages = {}
        """Its keys and values once it is computed, if it keeps them."""
        self.first_written = _first([write.site for write in writes])
        """Up to this position its keys and values are those of everybody with the same tokens."""
        if restart is not None:
            self.first_written = 0  # it has nothing below the layer that it begins at
        self.first_touched = min(self.first_written, _first([read.site for read in reads]))
        """From this position on it has to be computed, whatever others have left."""

    def check(self, owner: str) -> None:
        """Complain if something was not done.

        Args:
            owner: the part of the request whose writes these are.

        Raises:
            PlanFailed: a write was excessive.
        """
        for index, write in enumerate(self.writes):
            if write.excessive:
                where = write.site.where
                param = f"{owner}.write.{index}"
                raise PlanFailed(
                    f"{param} would have made a value at {where.point} of layer {where.layer} larger than "
                    f"{LARGEST:g}, or no number.",
                    param=param,
                )

    def posted(self, start: int, end: int, at: int) -> Iterator[Posted]:
        """What is to be done in a forward in which positions `start` to `end` lie from row `at` on."""
        taps: tuple[Write | Read, ...] = (*self.writes, *self.reads)
        for tap in taps:
            those = tap.site.within(start, end)
            if those.start < those.stop:
                site = tap.site
                yield Posted(
                    site.where,
                    site.rows(those, start, at),
                    partial(tap, those),
                    site.row_width,
                    writes=isinstance(tap, Write),
                )


def _first(sites: Sequence[Site]) -> int:
    """The first position that is named; beyond all positions where there is none."""
    return min((site.positions[0] for site in sites if site.positions), default=1 << 62)
