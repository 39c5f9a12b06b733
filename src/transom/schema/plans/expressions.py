"""Values made of others: total, without loops."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from transom.schema.plans.names import by, tag
from transom.schema.plans.tensors import Inline, Ref
from transom.schema.wire import Body


class Sub(Body):
    """One less the other."""

    sub: list[Ref] = Field(min_length=2, max_length=2)


class Add(Body):
    """The sum."""

    add: list[Ref] = Field(min_length=2, max_length=64)


class Scale(Body):
    """A value times a number."""

    scale: Ref
    by: float = Field(ge=-1e12, le=1e12)


class Mean(Body):
    """Over an axis, or over values."""

    mean: list[Ref] = Field(min_length=1, max_length=64)
    axis: Literal["", "layer", "pos", "head", "unit", "stack"] = Field(
        default="", description="Of a single value; empty for the first one"
    )


class Stack(Body):
    """Values of one shape, one after the other."""

    stack: list[Ref] = Field(min_length=1, max_length=4096)


class Dot(Body):
    """Over the last axis."""

    dot: list[Ref] = Field(min_length=2, max_length=2)


class Normalize(Body):
    """To length 1 along the last axis."""

    normalize: Ref


class Largest(Body):
    """The largest along the last axis, and where they are."""

    topk: Ref
    k: int = Field(ge=1, le=4096)


_EXPRESSIONS = ("sub", "add", "scale", "mean", "stack", "dot", "normalize", "topk")


def _expression(value: Any) -> str | None:  # noqa: ANN401
    if isinstance(value, dict):
        return next((name for name in _EXPRESSIONS if name in value), None)
    return next((name for name in _EXPRESSIONS if hasattr(value, name)), None)


Expr: TypeAlias = Annotated[
    Annotated[Sub, tag("sub")]
    | Annotated[Add, tag("add")]
    | Annotated[Scale, tag("scale")]
    | Annotated[Mean, tag("mean")]
    | Annotated[Stack, tag("stack")]
    | Annotated[Dot, tag("dot")]
    | Annotated[Normalize, tag("normalize")]
    | Annotated[Largest, tag("topk")],
    by(_expression),
]


def operation(expr: Any) -> tuple[str, list[str | Inline]]:  # noqa: ANN401
    """The operation of an expression, and what it is applied to."""
    name = _expression(expr) or ""
    operands = getattr(expr, name)
    return name, operands if isinstance(operands, list) else [operands]
