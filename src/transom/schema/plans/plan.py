"""`POST /v1/traces`: what is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from transom.schema.generation import MAX_SEED
from transom.schema.plans.expressions import Expr, operation
from transom.schema.plans.names import Name, RefText, owner
from transom.schema.plans.runs import Run
from transom.schema.plans.tensors import Inline
from transom.schema.wire import Body

MAX_RUNS = 4096
MAX_DERIVED = 1024
MAX_INLINE = 8 << 20
"""Bytes of all tensors in one plan."""


class Plan(Body):
    """Runs, and what is made of their values."""

    refused: ClassVar[dict[str, str]] = {"sweep": "sweeps are not offered yet; write a run for each cell"}

    model: str | None = None
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    runs: dict[Name, Run] = Field(min_length=1, max_length=MAX_RUNS)
    derive: dict[Name, Expr] = Field(default_factory=dict, max_length=MAX_DERIVED)
    returns: list[RefText] = Field(alias="return", min_length=1, max_length=4096)
    format: Literal["safetensors", "json"] = "safetensors"

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for field, ref in self._refs():
            if isinstance(ref, str):
                self._check_ref(field, ref)
        for name, run in self.runs.items():
            for index, source in run.swaps():
                if source not in self.runs:
                    raise _unknown(f"runs.{name}.write.{index}.value.run", source, self.runs)
        if sum(ref.array.nbytes for _, ref in self._refs() if isinstance(ref, Inline)) > MAX_INLINE:
            raise PydanticCustomError(
                "inline", "holds inline tensors of more than {most} bytes in all", {"most": MAX_INLINE}
            )
        self.order()
        self.derived_order()
        return self

    def order(self) -> list[str]:
        """The runs, each after those that it needs.

        Raises:
            PydanticCustomError: they go round in a circle.
        """
        return _sorted(
            {
                name: {owner(ref) for _, ref in run.refs() if isinstance(ref, str)}
                | {s for _, s in run.swaps()}
                for name, run in self.runs.items()
            },
            "runs",
        )

    def derived_order(self) -> list[str]:
        """The derived values, each after those that it needs; raises as `order` does."""
        needs = {
            name: {
                ref.split(".")[1]
                for ref in operation(expr)[1]
                if isinstance(ref, str) and owner(ref) == "derive"
            }
            for name, expr in self.derive.items()
        }
        return _sorted(needs, "derive")

    def _refs(self) -> Iterator[tuple[str, str | Inline]]:
        for name, run in self.runs.items():
            yield from ((f"runs.{name}.{field}", ref) for field, ref in run.refs())
        for name, expr in self.derive.items():
            found, operands = operation(expr)
            yield from ((f"derive.{name}.{found}.{index}", ref) for index, ref in enumerate(operands))
        yield from ((f"return.{index}", ref) for index, ref in enumerate(self.returns))

    def _check_ref(self, field: str, ref: str) -> None:
        whose, name = ref.split(".")[:2]
        if whose == "derive":
            if field.startswith("runs."):
                raise PydanticCustomError(
                    "ref", "{ref} is known once all runs are; refer to a read", {"field": field, "ref": ref}
                )
            if name not in self.derive:
                raise _unknown(field, name, self.derive)
            return
        if whose not in self.runs:
            raise _unknown(field, whose, self.runs)
        run = self.runs[whose]
        generated = ("tokens", "logprobs") if run.generate is not None else ()
        if name not in (*run.read, *generated):
            raise _unknown(field, ref, [f"{whose}.{each}" for each in (*run.read, *generated)])


def _unknown(field: str, name: str, known: Any) -> PydanticCustomError:  # noqa: ANN401
    listed = ", ".join(list(known)[:20]) or "none"
    return PydanticCustomError(
        "ref", "there is no {name}; there are: {known}", {"field": field, "name": name, "known": listed}
    )


def _sorted(needs: dict[str, set[str]], what: str) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise PydanticCustomError(
            "cycle", "go round in a circle: {circle}", {"field": what, "circle": circle}
        ) from None
