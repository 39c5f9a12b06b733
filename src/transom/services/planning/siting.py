"""Sites of a plan against the points of the model at hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.changes import GLOBAL, SiteSpec, WriteOp, WriteSpec
from transom.schema.plans.sites import Match, Pos, Site
from transom.schema.plans.writes import Write
from transom.schema.program import ModelPoint
from transom.services.planning.positions import Line, resolve

MAX_PLACES = 1 << 20
"""Most positions, heads and units of all sites of a plan together, each as often as there are layers."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a sweep puts in the place of its placeholders."""

    layer: int | None = None
    pos: int | None = None
    head: int | None = None


NO_CELL = Cell()


class Sites:
    """Finds the places of sites.

    Args:
        backend: of the model.
        copies: sequences that have each of the places.
    """

    def __init__(self, backend: Backend, copies: int = 1) -> None:
        self._copies = copies
        self.tokenizer = backend.tokenizer
        self._points: defaultdict[str, list[ModelPoint]] = defaultdict(list)
        for point in backend.points:
            self._points[point.name].append(point)
        self._matched: dict[tuple[Line, str, int], tuple[int, ...]] = {}
        self._places = 0

    def layers(self, name: str, param: str) -> list[int]:
        """The layers that have a point, rising.

        Raises:
            InvalidRequest: none has.
        """
        found = sorted(layer for point in self._points[name] for layer in point.layers)
        if not found:
            raise InvalidRequest(self._nowhere(name), param=f"{param}.at", code="unknown_point")
        return found

    def shape(self, name: str, layer: int) -> ModelPoint:
        """The point as a layer has it."""
        return next(point for point in self._points[name] if layer in point.layers)

    def resolve(self, site: Site, line: Line, cell: Cell, param: str) -> tuple[SiteSpec, ...]:
        """The places of a site in a run: one for each layer that it names.

        Raises:
            InvalidRequest: one of them is not there; names the field.
        """
        name = site.point.name
        wanted = self._layers(site, cell, param)
        shape = self.shape(name, wanted[0])
        if any(layer not in shape.layers for layer in wanted):
            raise InvalidRequest(
                f"{name} has another shape in other layers; read those apart.", param=f"{param}.at"
            )
        pos = cell.pos if site.pos == "{pos}" else site.pos
        positions = self._positions(pos, line, f"{param}.pos")
        heads = _within(_heads(site, cell), shape.heads, "head", param)
        units = _within(site.unit, shape.width or line.prompt + line.most, "unit", param)
        self.count(len(wanted) * (len(positions) + len(heads) + len(units)), param)
        return tuple(
            SiteSpec(point=name, layer=layer, positions=positions, heads=heads, units=units)
            for layer in wanted
        )

    def write(self, write: Write, line: Line, cell: Cell, param: str) -> WriteSpec:
        """A write in a run, but for a value that it takes from elsewhere.

        Raises:
            InvalidRequest: its site is not there, or cannot be written; names the field.
        """
        (site,) = self.resolve(write, line, cell, param)
        if not self.shape(site.point, site.layer).writable:
            raise InvalidRequest(
                f"{site.point} can be read and not written in this model; write to attn_out_post.",
                param=f"{param}.at",
            )
        # What another run has, or what is left of it on average, is set like any other value.
        op: WriteOp = "set" if write.op == "mean" or write.op == "swap" else write.op  # noqa: PLR1714
        number = write.value if isinstance(write.value, float) else 0.0
        scale = 1.0 if write.scale is None else write.scale
        return WriteSpec(site=site, op=op, number=number, scale=scale)

    def count(self, places: int, param: str) -> None:
        """Pass so many more places.

        Raises:
            InvalidRequest: they are too many.
        """
        self._places += self._copies * places
        if self._places > MAX_PLACES:
            raise InvalidRequest(
                f"More than {MAX_PLACES} positions, heads and units are named in all; name fewer, generate "
                "fewer tokens, or ask for less at once.",
                param=param,
                code="plan_too_large",
            )

    def _positions(self, pos: Pos | None, line: Line, param: str) -> tuple[int, ...]:
        if not isinstance(pos, Match):
            return resolve(pos, line, self.tokenizer, param)
        # To look for a text is to spell the whole prompt; the cells of a sweep look for the same.
        key = line, pos.match, pos.nth
        if key not in self._matched:
            self._matched[key] = resolve(pos, line, self.tokenizer, param)
        return self._matched[key]

    def _layers(self, site: Site, cell: Cell, param: str) -> list[int]:
        name = site.point.name
        there = self.layers(name, param)
        match site.name.layers:
            case None:
                return [GLOBAL]
            case "all":
                return there
            case "{layer}":
                wanted = [cell.layer if cell.layer is not None else GLOBAL]
            case (first, last):
                wanted = list(range(first, last + 1))
            case layer:
                wanted = [layer]
        for layer in wanted:
            if layer not in there:
                raise InvalidRequest(
                    f"There is no {name} in layer {layer}; {there[0]} to {there[-1]} have it.",
                    param=f"{param}.at",
                )
        return wanted

    def _nowhere(self, name: str) -> str:
        reasons = [point.reason for point in self._points[name] if point.reason]
        why = reasons[0] if reasons else "this engine computes it inside one operation"
        return f"{name} is nowhere in this model: {why}."


def _heads(site: Site, cell: Cell) -> list[int] | None:
    """The heads that a site names; a placeholder is the cell's."""
    if site.head is None or cell.head is None:
        return [head for head in site.head if isinstance(head, int)] if site.head is not None else None
    return [cell.head if isinstance(head, str) else head for head in site.head]


def _within(numbers: list[int] | None, count: int, what: str, param: str) -> tuple[int, ...]:
    for number in numbers or ():
        if number >= count:
            raise InvalidRequest(
                f"There is no {what} {number} here; there are {count}, counted from 0.",
                param=f"{param}.{what}",
            )
    return tuple(numbers or ())
