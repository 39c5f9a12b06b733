"""Which runs of a program have their beginning in common, so that it is computed once.

A run that is changed at a layer and a position computes, below that layer and before that position, what the
same prompt computes unchanged. Where a program holds both, the changed one begins in the middle of the other:
a sweep of every layer and position costs about a quarter of its runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transom.internals.board import GLOBAL, Floats, Where
from transom.internals.compile import Shapes
from transom.internals.restart import Pages, Restart
from transom.internals.taps import Columns, Read, Site, Taps
from transom.schema.changes import SiteSpec
from transom.schema.program import RunSpec

_STREAM = "resid_pre"

MOST_KEPT = 64 << 20
"""Numbers, of the residual stream and of the cache, that the runs of one program keep for others."""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """Where a run begins, and in whose middle."""

    base: str
    layer: int
    position: int


@dataclass
class _Base:
    """A run that others begin in the middle of."""

    layers: list[int]
    position: int
    """The first that anybody begins at."""
    streams: dict[int, Read] = field(default_factory=dict)
    """What goes into those layers, from that position on."""
    pages: Pages | None = None
    """Once it is computed."""


@dataclass
class Sharing:
    """The beginnings of a program's runs; without any, each run begins at the beginning."""

    _beginnings: dict[str, _Beginning] = field(default_factory=dict)
    _bases: dict[str, _Base] = field(default_factory=dict)
    _kept: int = 0
    """Numbers that runs keep for others."""

    @staticmethod
    def of(runs: Sequence[RunSpec]) -> Sharing:
        """Find what can be shared."""
        plain = {
            run.token_ids: run.name
            for run in reversed(runs)
            # One that needs nothing, so that it can never come to wait for those that wait for it.
            if not run.writes
            and not run.sampling.max_tokens
            and not any(read.direction for read in run.reads)
        }
        beginnings = {
            run.name: _Beginning(plain[run.token_ids], *_begins(run))
            for run in runs
            if run.writes and not run.sampling.max_tokens and run.token_ids in plain
        }
        shared = Sharing({name: each for name, each in beginnings.items() if each.layer > 0})
        for each in shared._beginnings.values():
            base = shared._bases.setdefault(each.base, _Base([], each.position))
            base.position = min(base.position, each.position)
            base.layers = sorted({*base.layers, each.layer})
        return shared

    def layer_of(self, run: RunSpec) -> int:
        """The layer that a run begins at."""
        beginning = self._beginnings.get(run.name)
        return 0 if beginning is None else beginning.layer

    def is_ready(self, run: RunSpec) -> bool:
        """Whether what a run begins in the middle of is computed."""
        beginning = self._beginnings.get(run.name)
        return beginning is None or self._bases[beginning.base].pages is not None

    def prepared(self, run: RunSpec, taps: Taps, shapes: Shapes) -> Taps:
        """The taps of a run, with where it begins, or with what it keeps for others."""
        beginning, base = self._beginnings.get(run.name), self._bases.get(run.name)
        if beginning is not None:
            return Taps(taps.reads, taps.writes, restart=self._restart(beginning))
        if base is None or not self._may_keep(base, len(run.token_ids), shapes):
            return taps
        positions = range(base.position, len(run.token_ids))
        width = _width(shapes)
        for layer in base.layers:
            base.streams[layer] = Read(Site(Where(_STREAM, layer), positions, Columns(1), width), width)
        return Taps([*taps.reads, *base.streams.values()], taps.writes, keeps_pages=True)

    def _may_keep(self, base: _Base, tokens: int, shapes: Shapes) -> bool:
        cached = sum(
            shape.groups * shape.width for where, shape in shapes.items() if where.point in ("k", "value")
        )
        wanted = tokens * (len(base.layers) * _width(shapes) + cached)
        fits = self._kept + wanted <= MOST_KEPT
        self._kept += wanted * fits
        return fits

    def collect(self, run: RunSpec, taps: Taps) -> None:
        """A run is computed: what it kept for others is there."""
        if run.name in self._bases:
            self._bases[run.name].pages = taps.pages

    def _restart(self, beginning: _Beginning) -> Restart | None:
        base = self._bases[beginning.base]
        if not base.streams or base.pages is None:
            return None
        stream: Floats = base.streams[beginning.layer].values[beginning.position - base.position :, 0]
        return Restart(beginning.layer, beginning.position, stream, base.pages)


def _begins(run: RunSpec) -> tuple[int, int]:
    """The first layer and the first position at which a run reads or writes."""
    sites = list(_sites(run))
    layers = [site.layer for site in sites if site.layer != GLOBAL]
    if any(site.layer == GLOBAL and site.point == "embeddings" for site in sites):
        layers.append(0)
    positions = [site.positions[0] for site in sites if site.positions]
    return min(layers, default=0), min(positions, default=0)


def _sites(run: RunSpec) -> Iterator[SiteSpec]:
    for read in run.reads:
        yield from read.sites
    yield from (write.site for write in run.writes)


def _width(shapes: Shapes) -> int:
    return next(shape.width for where, shape in shapes.items() if where.point == _STREAM)
