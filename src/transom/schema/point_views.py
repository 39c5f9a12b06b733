"""`GET /v1/points`: what can be read and written inside a model."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.changes import GLOBAL
from transom.schema.points import POINTS
from transom.schema.program import ModelPoint


class PointView(BaseModel):
    """A point of a model."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    layers: tuple[int, ...] | None = Field(description="Those that have it; null where it belongs to none")
    heads: int | None = Field(description="How many heads its numbers are divided into; null for none")
    width: int | None = Field(
        description="Numbers of a position, or of each head; null for the length of the sequence"
    )
    dtype: str = Field("float32", description="Of what is read and written")
    readable: bool
    writable: bool
    differentiable: bool
    module: str | None = Field(
        default=None, description="Which input or output of transformers' own modules it is; null for none"
    )
    reason: str | None = Field(description="Why no layer has it")


class PointPage(BaseModel):
    """The points of a model."""

    model_config = ConfigDict(frozen=True)

    model: str
    deployment: str
    data: tuple[PointView, ...]


def views(points: Iterable[ModelPoint], vocabulary: int) -> tuple[PointView, ...]:
    """In the order of a forward."""
    order = {name: index for index, name in enumerate(POINTS)}
    logits = ModelPoint(name="lm_head", layers=(GLOBAL,), heads=1, width=vocabulary, module="lm_head.output")
    return tuple(_view(point) for point in sorted((*points, logits), key=lambda each: order[each.name]))


def _view(point: ModelPoint) -> PointView:
    known, there = POINTS[point.name], bool(point.layers)
    return PointView(
        name=point.name,
        description=known.description,
        layers=None if point.layers == (GLOBAL,) else point.layers,
        heads=point.heads if known.has_heads and there else None,
        width=(point.width or None) if there else None,
        readable=there and known.readable,
        writable=there and known.writable and point.writable,
        differentiable=there and point.differentiable,
        module=point.module or None,
        reason=point.reason or None,
    )
