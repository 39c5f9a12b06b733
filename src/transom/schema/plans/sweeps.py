"""Sweeps: one run of a plan, repeated for every combination of layers, positions and heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from transom.schema.plans.runs import Run
from transom.schema.plans.sites import Axis, Index, Position
from transom.schema.plans.values import Loc, form, named_once, one_of, problem
from transom.schema.points import MAX_LAYER
from transom.schema.wire import Body

MAX_CELLS = 4096
"""Most combinations of a sweep."""

_Indices = Annotated[list[Index], Field(min_length=1, max_length=MAX_CELLS), AfterValidator(named_once)]
_Layers = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_LAYER)]],
    Field(min_length=1, max_length=MAX_CELLS),
    AfterValidator(named_once),
]
_Positions = Annotated[list[Position], Field(min_length=1, max_length=MAX_CELLS), AfterValidator(named_once)]

_ALL = form(Literal["all"])


def _all_or(listed: Any) -> Any:  # noqa: ANN401
    lists = form(listed)
    forms: dict[type, TypeAdapter[Any]] = {str: _ALL, list: lists}
    return one_of(lambda value: forms.get(type(value)), 'must be "all" or a list of integers')


class Sweep(Body):
    """What to go over; every combination is a cell, and the axes stand in the order layer, position, head."""

    layer: Annotated[_Layers | Literal["all"], _all_or(_Layers)] | None = Field(
        default=None, description="For sites with `point.{layer}`."
    )
    pos: Annotated[_Positions | Literal["all"], _all_or(_Positions)] | None = Field(
        default=None, description='For sites with the pos "{pos}".'
    )
    head: Annotated[_Indices | Literal["all"], _all_or(_Indices)] | None = Field(
        default=None, description='For sites with the head ["{head}"].'
    )

    @model_validator(mode="after")
    def _goes_over_something(self) -> Self:
        if not self.axes:
            raise PydanticCustomError("sweep", "must have at least one of layer, pos and head")
        if self.least_cells > MAX_CELLS:
            raise PydanticCustomError(
                "sweep",
                "has {cells} cells or more, above the most of {most}; shorten its lists, or split it",
                {"cells": self.least_cells, "most": MAX_CELLS},
            )
        return self

    @property
    def axes(self) -> dict[Axis, list[int] | Literal["all"]]:
        """What it goes over, in the order of the axes that values get in front."""
        given: dict[Axis, list[int] | Literal["all"] | None] = {
            "layer": self.layer,
            "pos": self.pos,
            "head": self.head,
        }
        return {axis: values for axis, values in given.items() if values is not None}

    @property
    def least_cells(self) -> int:
        """Its cells, if each axis that is "all" had one value; only a model knows how many it has."""
        return math.prod(1 if values == "all" else len(values) for values in self.axes.values())


def swept_run(runs: Mapping[str, Run]) -> str | None:
    """The run whose sites leave something to the sweep; None where there is none."""
    return next(
        (name for name, run in runs.items() if any(site.placeholders for _, site in run.sites())), None
    )


def sweep_problems(runs: Mapping[str, Run], sweep: Sweep | None) -> list[InitErrorDetails]:
    """Placeholders without an axis, axes without a placeholder, and placeholders in a second run."""
    swept = swept_run(runs)
    axes = sweep.axes if sweep is not None else {}
    found: list[InitErrorDetails] = []
    used: set[Axis] = set()
    for name, loc, axis in _placeholders(runs):
        if sweep is None:
            message = "leaves the {axis} to a sweep, and the plan has none; add sweep, or write which one"
            found.append(problem(loc, "sweep", message, axis=axis))
        elif name != swept:
            message = "stands in a second run, and a sweep repeats one: {swept}; write which {axis} is meant"
            found.append(problem(loc, "sweep", message, swept=swept, axis=axis))
        elif axis not in axes:
            message = "leaves the {axis} to the sweep, which has none; add {axis} to sweep"
            found.append(problem(loc, "sweep", message, axis=axis))
        else:
            used.add(axis)
    for axis in axes:
        if axis not in used:
            message = "is used by no site; write {placeholder} in the run that is to be repeated"
            found.append(problem(("sweep", axis), "sweep", message, placeholder=_PLACEHOLDERS[axis]))
    return found


_PLACEHOLDERS: dict[Axis, str] = {
    "layer": "a layer of {layer}, as in resid_post.{layer},",
    "pos": '"pos": "{pos}"',
    "head": '"head": ["{head}"]',
}


def _placeholders(runs: Mapping[str, Run]) -> list[tuple[str, Loc, Axis]]:
    return [
        (name, ("runs", name, *loc, field), axis)
        for name, run in runs.items()
        for loc, site in run.sites()
        for axis, field in site.placeholders.items()
    ]
