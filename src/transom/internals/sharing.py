"""What the runs of one program keep for others, which begin in their middle; see `schema.beginnings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transom.internals.board import Floats, Where
from transom.internals.compile import Shapes
from transom.internals.restart import Pages, Restart
from transom.internals.taps import Columns, Read, Site, Taps
from transom.schema.beginnings import Beginning, Beginnings, find_beginnings
from transom.schema.program import RunSpec

_STREAM = "resid_pre"


@dataclass
class _Kept:
    """What a run has kept for those that begin in its middle."""

    streams: dict[int, Read]
    """What goes into the layers at which they begin, from the first position of any on."""
    pages: Pages | None = None
    """Once it is computed."""


@dataclass
class Sharing:
    """The beginnings of a program's runs; without any, each run begins at the beginning."""

    _beginnings: Beginnings = field(default_factory=Beginnings)
    _kept: dict[str, _Kept] = field(default_factory=dict)
    """By base, once it is prepared."""

    @staticmethod
    def of(runs: Sequence[RunSpec], shapes: Shapes) -> Sharing:
        """Find what can be shared in a model of these shapes."""
        return Sharing(
            find_beginnings(runs, width=stream_width(shapes), cached=cached_numbers(shapes)),
        )

    def layer_of(self, run: RunSpec) -> int:
        """The layer that a run begins at."""
        return self._beginnings.layer_of(run.name)

    def is_ready(self, run: RunSpec) -> bool:
        """Whether what a run begins in the middle of is computed."""
        beginning = self._beginnings.of.get(run.name)
        if beginning is None:
            return True
        kept = self._kept.get(beginning.base)
        return kept is not None and kept.pages is not None

    def prepared(self, run: RunSpec, taps: Taps, shapes: Shapes) -> Taps:
        """The taps of a run, with where it begins, or with what it keeps for others."""
        beginning, base = self._beginnings.of.get(run.name), self._beginnings.bases.get(run.name)
        if beginning is not None:
            return Taps(taps.reads, taps.writes, restart=self._restart(beginning))
        if base is None:
            return taps
        positions, width = range(base.position, len(run.token_ids)), stream_width(shapes)
        streams = {
            layer: Read(
                Site(Where(_STREAM, layer), positions, Columns(1), width),
                np.zeros((len(positions), 1, width), np.float32),
            )
            for layer in base.layers
        }
        self._kept[run.name] = _Kept(streams)
        return Taps([*taps.reads, *streams.values()], taps.writes, keeps_pages=True)

    def collect(self, run: RunSpec, taps: Taps) -> None:
        """A run is computed: what it kept for others is there."""
        if run.name in self._kept:
            self._kept[run.name].pages = taps.pages

    def _restart(self, beginning: Beginning) -> Restart:
        kept, base = self._kept[beginning.base], self._beginnings.bases[beginning.base]
        assert kept.pages is not None  # noqa: S101  # who begins in its middle has waited for it
        stream: Floats = kept.streams[beginning.layer].values[beginning.position - base.position :, 0]
        return Restart(beginning.layer, beginning.position, stream, kept.pages)


def stream_width(shapes: Shapes) -> int:
    """Numbers of a position in the residual stream; 0 where no layer shows it."""
    return next((shape.width for where, shape in shapes.items() if where.point == _STREAM), 0)


def cached_numbers(shapes: Shapes) -> int:
    """Numbers of keys and values of a position, in all layers that show them."""
    return sum(shape.groups * shape.width for where, shape in shapes.items() if where.point in ("k", "value"))
