"""Plans: what a researcher asks to be run inside a model, as data.

A plan says nothing of a model but its name, and everything that can be checked without one is checked here.
Whether layers, heads, tokens and shapes fit is found out where it is resolved.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import InitErrorDetails

from transom.schema.generation import MAX_SEED
from transom.schema.plans.derive import Expr
from transom.schema.plans.graph import Parts, cycle_problem, reference_problems
from transom.schema.plans.refs import Artifact, RefText, Use, target_of
from transom.schema.plans.runs import Run
from transom.schema.plans.sweeps import Sweep, sweep_problems, swept_run
from transom.schema.plans.tensors import MAX_PLAN_BYTES, Inline
from transom.schema.plans.values import Loc, Name, located, problem
from transom.schema.wire import Body, Text

MAX_RUNS = 256
MAX_DERIVED = 256
MAX_RETURNED = 4096


def _what_is_made_here(refs: list[str]) -> list[str]:
    found: list[InitErrorDetails] = []
    seen: set[str] = set()
    for index, ref in enumerate(refs):
        if isinstance(target_of(ref), Artifact):
            message = "is an artifact, which is there already; return what runs and derive make"
            found.append(problem((index,), "reference", message))
        if ref in seen:
            found.append(problem((index,), "twice", "is named before; name it once"))
        seen.add(ref)
    if found:
        raise located(*found)
    return refs


class Plan(Body):
    """Runs of a model, what is changed and read in them, and which results are wanted."""

    model: Text = Field(description="Which model.")
    seed: int = Field(
        default=0,
        ge=-MAX_SEED - 1,
        le=MAX_SEED,
        description="Keys all noise, with the run, the position and the unit.",
    )
    runs: dict[Name, Run] = Field(
        min_length=1,
        max_length=MAX_RUNS,
        description="By name. They may take values of each other, as long as that closes no cycle.",
    )
    derive: dict[Name, Expr] = Field(
        default_factory=dict,
        max_length=MAX_DERIVED,
        description="Derived values, by name; offered as `derive.name`.",
        json_schema_extra={"default": {}},
    )
    returns: Annotated[list[RefText], AfterValidator(_what_is_made_here)] = Field(
        alias="return",
        min_length=1,
        max_length=MAX_RETURNED,
        description="What to send back: `run.read` or `derive.name`.",
    )
    sweep: Sweep | None = Field(default=None, description="What to repeat one run over.")
    format: Literal["safetensors", "json", "parts"] = Field(
        default="safetensors",
        description="Form of the answer; `parts` is a manifest of a file that is fetched by itself.",
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        found = reference_problems(self.parts, self._returned())
        if not found and (cycle := cycle_problem(self.parts)) is not None:
            found.append(cycle)
        found.extend(sweep_problems(self.runs, self.sweep))
        if found:
            raise located(*found)
        return self

    @model_validator(mode="after")
    def _holds_no_more_than_it_may(self) -> Self:
        total = 0
        for loc, tensor in self.tensors():
            total += tensor.nbytes
            if total > MAX_PLAN_BYTES:
                message = "makes the plan hold more than {most} bytes of tensors; upload them as artifacts"
                raise located(problem((*loc, "inline"), "tensor", message, most=MAX_PLAN_BYTES))
        return self

    @cached_property
    def parts(self) -> Parts:
        """Its runs and derived values as one graph."""
        return Parts(self.runs, self.derive)

    def _returned(self) -> list[Use]:
        return [Use(("return", index), target_of(ref), "returned") for index, ref in enumerate(self.returns)]

    def order(self) -> list[str]:
        """The names of the runs, each after those that it takes values of, be it by way of derived ones."""
        return [node for node in self.steps() if not node.startswith("derive.")]

    def steps(self) -> list[str]:
        """The same with the derived values among them, as `derive.name`."""
        return self.parts.order()

    def tensors(self) -> list[tuple[Loc, Inline]]:
        """Every inline tensor, with where its reference stands."""
        return [(use.loc, use.target) for _, use in self.parts.uses if isinstance(use.target, Inline)]

    def artifacts(self) -> list[tuple[Loc, Artifact]]:
        """Every artifact that it takes, with where its reference stands."""
        return [(use.loc, use.target) for _, use in self.parts.uses if isinstance(use.target, Artifact)]

    @cached_property
    def swept_run(self) -> str | None:
        """The run that the sweep repeats; None without a sweep."""
        return swept_run(self.runs)
