"""From the specification of a run, and the values that it needs, to taps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from transom.errors import PlanFailed
from transom.internals import edits
from transom.internals.board import Floats, Where
from transom.internals.edits import Edit
from transom.internals.room import Room
from transom.internals.taps import Columns, Read, Site, Taps, Write
from transom.internals.values import Value
from transom.schema.changes import DIRECTED, Changes, SiteSpec, WriteSpec
from transom.schema.program import ReadSpec, RunSpec, WrtSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """How the numbers of a row at a point are arranged."""

    groups: int
    """Heads; 1 where the point has none."""
    width: int
    """Numbers of each; 0 where that is a number of each sequence of its own."""


Shapes = Mapping[Where, Shape]
"""Of every place that a model has."""


@dataclass(frozen=True, slots=True)
class _Patterned(Mapping[Where, Shape]):
    """The same with the width of attention patterns, which is the length of the sequence.

    A sweep has hundreds of runs that each look up one place or two of a thousand.
    """

    shapes: Shapes
    longest: int

    def __getitem__(self, where: Where) -> Shape:
        shape = self.shapes[where]
        return shape if shape.width else Shape(shape.groups, self.longest)

    def __iter__(self) -> Iterator[Where]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True, slots=True)
class Source:
    """Where writes come from."""

    owner: str
    """The part of the request that they stand in, for errors."""
    key: str
    """What noise is a function of, beside the write and the place."""
    values: Mapping[str, Value]
    """Those that they refer to, by name."""


@dataclass(frozen=True, slots=True)
class Tapped:
    """Taps, and what they read for each value."""

    taps: Taps
    reads: dict[str, Floats]
    """[sites, positions, groups, width] each."""


def compile_run(run: RunSpec, shapes: Shapes, values: Mapping[str, Value], seed: int, room: Room) -> Tapped:
    """The taps of a run.

    Args:
        run: what to do.
        shapes: of the model's points.
        values: by name, each that the run refers to.
        seed: of noise.
        room: for what it reads.

    Raises:
        PlanFailed: a value does not fit the site that it is written to.
    """
    shapes = _Patterned(shapes, len(run.token_ids) + run.sampling.max_tokens)
    reads: list[Read] = []
    kept: dict[str, Floats] = {}
    for spec in run.reads:
        found = [_site(site, shapes) for site in spec.sites]
        (first, width), positions = found[0], len(spec.sites[0].positions)
        kept[spec.name] = room.zeros((len(found), positions, first.columns.groups, width))
        reads += [Read(site, part) for (site, _), part in zip(found, kept[spec.name], strict=True)]
    source = Source(f"runs.{run.origin}", f"{seed}/{run.name}", values)
    writes = [_write(spec, index, source, shapes) for index, spec in enumerate(run.writes)]
    return Tapped(Taps(reads, writes), kept)


def compile_changes(changes: Changes, shapes: Shapes, owner: str, key: str) -> Taps:
    """The taps of a sequence that is written to and not read.

    Args:
        changes: what to do.
        shapes: of the model's points.
        owner: the part of the request that they stand in, for errors.
        key: of noise.

    Raises:
        PlanFailed: a value does not fit the site that it is written to.
    """
    shapes = _Patterned(shapes, changes.longest)
    values = {name: Value.of(tensor) for name, tensor in changes.tensors.items()}
    source = Source(owner, key, values)
    return Taps([], [_write(spec, index, source, shapes) for index, spec in enumerate(changes.writes)])


def value_of(spec: ReadSpec, kept: Floats, computed: int) -> Value:
    """What a run has read for a value, before it is reduced.

    Args:
        spec: of the value.
        kept: what it read, [sites, positions, groups, width].
        computed: how many positions the run had; where it ended early, later ones are left out.
    """
    known = sum(position < computed for position in spec.sites[0].positions)
    return assembled(kept[:, :known], spec)


def assembled(whole: Floats, spec: ReadSpec | WrtSpec) -> Value:
    """A value made of what there is at all of its sites: [layers] positions [heads] width.

    Args:
        whole: [sites, positions, groups, width]; the value is a view of it.
        spec: of the value.
    """
    array = whole if spec.layered else whole[0]
    axes = ("layer",) * spec.layered + ("pos", "head", "unit")
    if array.shape[-2] == 1 and not spec.sites[0].heads:
        return Value(array[..., 0, :], (*axes[:-2], "unit"))
    return Value(array, axes)


def site_of(spec: SiteSpec, shapes: Shapes) -> Site:
    """A site as taps have it."""
    return _site(spec, shapes)[0]


def _site(spec: SiteSpec, shapes: Shapes) -> tuple[Site, int]:
    where = Where(spec.point, spec.layer)
    shape = shapes[where]
    site = Site(where, spec.positions, _columns(spec, shape), shape.groups * shape.width)
    return site, len(spec.units) or shape.width


def _columns(spec: SiteSpec, shape: Shape) -> Columns:
    groups = len(spec.heads) or shape.groups
    if not spec.heads and not spec.units:
        return Columns(groups)
    heads = np.asarray(spec.heads or range(shape.groups), np.intp)
    units = np.asarray(spec.units or range(shape.width), np.intp)
    return Columns(groups, (heads[:, None] * shape.width + units).reshape(-1))


def _write(spec: WriteSpec, index: int, source: Source, shapes: Shapes) -> Write:
    site, width = _site(spec.site, shapes)
    if spec.op == "noise":
        name = f"{source.key}/{index}/{spec.site.point}/{spec.site.layer}"
        key = int.from_bytes(sha256(name.encode()).digest()[:16], "little")
        return Write(site, edits.noise(spec.scale, key, np.asarray(spec.site.positions, np.int64)))
    value = _fitted(spec, index, source, (len(site.positions), site.columns.groups, width))
    return Write(site, _edit(spec, value))


def _edit(spec: WriteSpec, value: Floats) -> Edit:
    match spec.op:
        case "add":
            return edits.add(value, spec.scale)
        case "scale_along":
            return edits.scale_component(value, spec.scale)
        case "project_out":
            return edits.scale_component(value, 0.0)
        case "clamp":
            return edits.set_component(value, spec.scale)
        case _:
            return edits.replace(value)


def _fitted(spec: WriteSpec, index: int, source: Source, shape: tuple[int, int, int]) -> Floats:
    """The value of a write as [positions or 1, groups or 1, width or 1].

    Raises:
        PlanFailed: it has another shape.
    """
    if not spec.value:
        return np.full((1, 1, 1), spec.number, np.float32)
    value = source.values[spec.value]
    array = np.asarray(value.array, np.float32)
    for target in _targets(spec, value, shape):
        if array.size == math.prod(target):
            return array.reshape(target)
    positions, groups, width = shape
    param = f"{source.owner}.write.{index}.value"
    raise PlanFailed(
        f"{param}: it has shape {list(value.array.shape)}; the site has {positions} positions of {groups} "
        f"times {width} numbers.",
        param=param,
    )


def _targets(spec: WriteSpec, value: Value, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """The shapes that a value may be given for, the likeliest first."""
    positions, groups, width = shape
    if spec.is_borrowed:
        # Anything else that has as many numbers would be something else.
        return (shape,)
    if spec.op in DIRECTED:
        return (1, groups, width), (1, 1, width)
    alike = (1, groups, width), (1, 1, width), (1, 1, 1)
    each = (positions, groups, width), (positions, 1, width)
    return (*each, *alike) if "pos" in value.axes else (*alike, *each)
