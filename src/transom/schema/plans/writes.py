"""Writes: what replaces or changes a value inside a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails

from transom.schema.plans.refs import (
    OtherRun,
    RefText,
    Role,
    Use,
    target_of,
    text_or_inline,
)
from transom.schema.plans.sites import Site, instead_of
from transom.schema.plans.tensors import Inline
from transom.schema.plans.values import Number, form, located, one_of, problem

MAX_WRITES = 64
"""Most writes of one run."""

Takes = Literal["nothing", "a reference", "a reference or a number", "a run"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to change a value."""

    value: Takes
    scale: Literal["none", "optional", "required"]
    description: str


OPERATIONS: dict[str, Operation] = {
    "set": Operation("a reference or a number", "none", "Becomes `value`."),
    "add": Operation("a reference or a number", "optional", "`value` times `scale` (1) is added."),
    "zero": Operation("nothing", "none", "Becomes 0."),
    "mean": Operation("a reference", "none", "Becomes `value`, which has no position axis."),
    "noise": Operation("nothing", "required", "Gaussian noise of standard deviation `scale` is added."),
    "scale_along": Operation(
        "a reference", "required", "The component along the direction `value` is multiplied by `scale`."
    ),
    "project_out": Operation("a reference", "none", "The component along the direction `value` is removed."),
    "clamp": Operation(
        "a reference", "required", "The component along the direction `value` becomes `scale`."
    ),
    "swap": Operation(
        "a run", "none", 'Becomes what the run of `value`, `{"run": name}`, has at this very site.'
    ),
}
"""What each operation does and takes."""

_NUMBER = form(Number)
_RUN = form(OtherRun)


def _form_of_value(value: object) -> TypeAdapter[Any] | None:
    if type(value) in {int, float}:
        return _NUMBER
    if isinstance(value, dict) and "run" in value:
        return _RUN
    return text_or_inline(value)


Value = Annotated[
    RefText | Number | OtherRun | Inline,
    one_of(
        _form_of_value,
        "must be a number, a reference such as run.read, an object with an inline tensor, or one with a run",
    ),
]


class Write(Site):
    """A change of a value, at a site of one layer."""

    op: Literal["set", "add", "zero", "mean", "noise", "scale_along", "project_out", "clamp", "swap"] = Field(
        description=" ".join(f"`{name}`: {operation.description}" for name, operation in OPERATIONS.items())
    )
    value: Value | None = Field(default=None, description="What the operation takes, if anything.")
    scale: Number | None = Field(default=None, description="The operation's number, if it has one.")

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        found = self.one_layer_only("a write")
        if not self.point.writable:
            message = "is refused: {point} is read only; write at {instead}"
            found = [
                problem(("at",), "point", message, point=self.point.name, instead=instead_of(self.point))
            ]
        if found:
            raise located(*found)
        return self

    @model_validator(mode="after")
    def _takes_what_its_operation_takes(self) -> Self:
        found = [finding for finding in (self._about_value(), self._about_scale()) if finding is not None]
        if found:
            raise located(*found)
        return self

    def _about_value(self) -> InitErrorDetails | None:
        takes = OPERATIONS[self.op].value
        if takes == "nothing":
            if self.value is None:
                return None
            return problem(("value",), "operation", "is not taken by {op}; leave it out", op=self.op)
        kinds: dict[type, str] = {float: "number", OtherRun: "run"}
        given = kinds.get(type(self.value), "reference")
        if self.value is not None and given in takes:
            return None
        example = '; write {"run": name}' if takes == "a run" else "; write run.read, say"
        message = "must be {takes} for {op}{example}"
        return problem(("value",), "operation", message, takes=takes, op=self.op, example=example)

    def _about_scale(self) -> InitErrorDetails | None:
        takes = OPERATIONS[self.op].scale
        if self.scale is None:
            if takes != "required":
                return None
            return problem(("scale",), "operation", "is required by {op}; give a number", op=self.op)
        if takes == "none":
            return problem(("scale",), "operation", "is not taken by {op}; leave it out", op=self.op)
        if self.op == "noise" and self.scale < 0:
            return problem(("scale",), "operation", "is a standard deviation here; give 0 or more")
        return None

    def refs(self) -> list[Use]:
        """What it takes from elsewhere."""
        if self.value is None or isinstance(self.value, float):
            return []
        role: Role = "mean" if self.op == "mean" else "run" if self.op == "swap" else "tensor"
        loc = ("value", "run") if role == "run" else ("value",)
        return [Use(loc, target_of(self.value), role)]
