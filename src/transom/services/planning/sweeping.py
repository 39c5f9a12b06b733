"""The cells of a sweep, once the model and the prompt say how many layers, positions and heads there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from transom.errors import InvalidRequest
from transom.schema.plan import Plan
from transom.schema.plans.sites import Axis, Site
from transom.schema.plans.sweeps import MAX_CELLS
from transom.services.planning.positions import Line
from transom.services.planning.siting import Cell, Sites


@dataclass(frozen=True, slots=True)
class Grid:
    """What a sweep goes over."""

    axes: tuple[tuple[str, int], ...]
    """Name and length of each axis, the outermost first."""
    cells: list[Cell]
    """The last axis fastest."""


def grid_of(plan: Plan, run: str, line: Line, sites: Sites) -> Grid:
    """The cells of a plan's sweep over one of its runs.

    Raises:
        InvalidRequest: there are too many.
    """
    assert plan.sweep is not None  # noqa: S101  # asked for swept runs only
    ranges: dict[Axis, list[int]] = {}
    for axis, values in plan.sweep.axes.items():
        ranges[axis] = _all(axis, plan, run, line, sites) if values == "all" else list(values)
    count = math.prod(map(len, ranges.values()))
    if count > MAX_CELLS:
        raise InvalidRequest(
            f"The sweep has {count} cells, above the most of {MAX_CELLS}; shorten its lists, or split it.",
            param="sweep",
        )
    cells = [Cell(**dict(zip(ranges, values, strict=True))) for values in product(*ranges.values())]
    return Grid(tuple((axis, len(values)) for axis, values in ranges.items()), cells)


def _all(axis: Axis, plan: Plan, run: str, line: Line, sites: Sites) -> list[int]:
    if axis == "pos":
        return list(range(line.prompt))
    loc, site = _user(plan, run, axis)
    layers = sites.layers(site.point.name, f"runs.{run}.{loc}")
    return layers if axis == "layer" else list(range(sites.shape(site.point.name, layers[0]).heads))


def _user(plan: Plan, run: str, axis: Axis) -> tuple[str, Site]:
    """The first site that leaves something to an axis, and where it stands."""
    return next(
        (".".join(map(str, loc)), site) for loc, site in plan.runs[run].sites() if axis in site.placeholders
    )
