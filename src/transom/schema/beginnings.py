"""Which runs of a program have their beginning in common, so that it is computed once.

A run that is changed at a layer and a position computes, below that layer and before that position, what the
same prompt computes unchanged. Where a program holds both, the changed one begins in the middle of the other:
a sweep of every layer and position costs about a quarter of its runs. The engine goes by this, and whoever
says beforehand what a plan costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transom.schema.changes import GLOBAL, SiteSpec
from transom.schema.program import RunSpec

MOST_KEPT = 64 << 20
"""Numbers, of the residual stream and of the cache, that the runs of one program keep for others."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a run begins, and in whose middle."""

    base: str
    layer: int
    position: int


@dataclass(frozen=True, slots=True)
class Base:
    """What a run keeps for those that begin in its middle."""

    layers: tuple[int, ...]
    """At which any begins, rising."""
    position: int
    """The first at which any begins."""
    numbers: int
    """Of the residual stream and of the cache, together."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """The beginnings of a program's runs; a run without one begins at the beginning."""

    of: dict[str, Beginning] = field(default_factory=dict)
    bases: dict[str, Base] = field(default_factory=dict)

    def layer_of(self, run: str) -> int:
        """The layer that a run begins at."""
        return self.of[run].layer if run in self.of else 0

    def position_of(self, run: str) -> int:
        """The position that a run begins at."""
        return self.of[run].position if run in self.of else 0


def find_beginnings(runs: Sequence[RunSpec], *, width: int, cached: int) -> Beginnings:
    """Find what can be shared.

    Args:
        runs: of a program.
        width: numbers of the residual stream, of a position.
        cached: numbers of keys and values, of a position in all layers.
    """
    plain = {
        run.token_ids: run.name
        for run in reversed(runs)
        # One that needs nothing, so that it can never come to wait for those that wait for it.
        if not run.writes and not run.sampling.max_tokens and not any(read.direction for read in run.reads)
    }
    found = {
        run.name: Beginning(plain[run.token_ids], *_begins(run))
        for run in runs
        if run.writes and not run.sampling.max_tokens and run.token_ids in plain
    }
    found = {name: each for name, each in found.items() if each.layer > 0}
    asking: defaultdict[str, list[Beginning]] = defaultdict(list)
    for each in found.values():
        asking[each.base].append(each)
    bases: dict[str, Base] = {}
    left = MOST_KEPT
    for run in runs:
        if run.name in asking:
            those = asking[run.name]
            layers = tuple(sorted({each.layer for each in those}))
            numbers = len(run.token_ids) * (len(layers) * width + cached)
            if numbers <= left:
                left -= numbers
                bases[run.name] = Base(layers, min(each.position for each in those), numbers)
    return Beginnings({name: each for name, each in found.items() if each.base in bases}, bases)


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
