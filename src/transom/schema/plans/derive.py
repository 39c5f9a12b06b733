"""Derived values: arithmetic over references, without loops. Shapes are checked where the model is known."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, TypeAdapter, model_validator

from transom.schema.plans.refs import Ref, Use, target_of, text_or_inline
from transom.schema.plans.values import Name, Number, by_key, form, located, one_of, pair, problem
from transom.schema.wire import Body

MAX_OPERANDS = 256

_Refs = Annotated[list[Ref], Field(min_length=1, max_length=MAX_OPERANDS)]
_REFS = form(_Refs)


class Expression(Body):
    """An operation, by the name of its first field, which holds its operands."""

    parts: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that it gives, where they are two."""

    def refs(self) -> list[Use]:
        """What it takes from elsewhere."""
        key = next(iter(type(self).model_fields))
        operands = getattr(self, key)
        if not isinstance(operands, list | tuple):
            return [Use((key,), target_of(operands))]
        return [
            Use((key, index), target_of(operand))
            for index, operand in enumerate(operands)
            if not isinstance(operand, float)
        ]


class Sub(Expression):
    """The first minus the second."""

    sub: Annotated[tuple[Ref, Ref], pair("references")]


class Add(Expression):
    """The sum of all."""

    add: _Refs


class Scale(Expression):
    """A value times a number."""

    scale: Annotated[tuple[Ref, Number], pair("a reference and a number")]


def _form_of_mean(value: object) -> TypeAdapter[Any] | None:
    return _REFS if isinstance(value, list) else text_or_inline(value)


class Mean(Expression):
    """The mean of one value, along one of its axes, or of several values of one shape."""

    mean: Annotated[Ref | _Refs, one_of(_form_of_mean, "must be a reference, or a list of references")]
    axis: Name | None = Field(default=None, description="Along which axis of the one value. Left out, all.")

    @model_validator(mode="after")
    def _has_one_sense(self) -> Self:
        if self.axis is not None and isinstance(self.mean, list):
            message = (
                "is not taken with a list, whose mean is over its values; leave it out, or stack them first"
            )
            raise located(problem(("axis",), "expression", message))
        return self


class Stack(Expression):
    """Values of one shape, along a new axis in front."""

    stack: _Refs


class DotProduct(Expression):
    """The dot product along the last axis."""

    dot: Annotated[tuple[Ref, Ref], pair("references")]


class Normalize(Expression):
    """Divided by the Euclidean norm along the last axis."""

    normalize: Ref


class TopK(Expression):
    """The k largest along the last axis: `ids`, which are their places, and `values`."""

    parts: ClassVar[tuple[str, ...]] = ("ids", "values")

    topk: Ref
    k: int = Field(ge=1, lt=2**31)


_MEMBERS: dict[str, TypeAdapter[Any]] = {
    "sub": form(Sub),
    "add": form(Add),
    "scale": form(Scale),
    "mean": form(Mean),
    "stack": form(Stack),
    "dot": form(DotProduct),
    "normalize": form(Normalize),
    "topk": form(TopK),
}

Expr = Annotated[
    Sub | Add | Scale | Mean | Stack | DotProduct | Normalize | TopK,
    one_of(
        lambda value: by_key(_MEMBERS, value),
        "must be an object with one of sub, add, scale, mean, stack, dot, normalize and topk",
    ),
]
