"""`POST /v1/traces/explain`: what a plan would take and give, told before anything runs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.program import DType


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenCount(_View):
    """Tokens of all runs together, each cell of a sweep a run of its own."""

    prompt: int
    generated: int = Field(description="At most")


class SharedRun(_View):
    """A run in whose middle others begin, so that their beginning is not computed again."""

    run: str
    begin: int = Field(description="How many runs begin in its middle")
    layers: tuple[int, ...] = Field(description="At which they begin")
    position: int = Field(description="The first at which one begins")
    saved: int = Field(description="Rows, each counted for every layer, that they need not compute")
    bytes: int = Field(description="What is kept for them until the plan ends")


class Rows(_View):
    """Rows of forwards, each counted for every layer that it goes through.

    What is found in pages that others have left is not computed again, and not known beforehand; what a
    preemption throws away is computed twice.
    """

    alone: int = Field(description="Were every run computed from its beginning")
    computed: int = Field(description="With what runs have in common computed once")
    gradients: int = Field(description="Of forwards and backwards for gradients; a backward counts as two")
    output: int = Field(description="Rows that go through the output matrix")


class Operations(_View):
    """Floating-point operations; a multiplication and an addition are two."""

    forward: int
    gradients: int
    output: int = Field(description="Of the output matrix")
    total: int


class Memory(_View):
    """Bytes at most, beside the model and its cache."""

    values: int = Field(description="Of all values, which are kept until the plan ends")
    captured: int = Field(description="Of what is read and then reduced")
    shared: int = Field(description="Of what runs keep for those that begin in their middle")
    gradients: int = Field(
        description="Of the largest gradient while it is computed; each waits for the last"
    )
    copy_of_model: int = Field(
        description="Of the model once more, which the first gradient loads, and which stays"
    )
    total: int
    spilled: int = Field(description="On disk, and not in memory: what is read, where that is much")


class Charge(_View):
    """What each budget is charged at most."""

    requests: int
    tokens: int
    engine_seconds: float
    internals_bytes: int
    released_rank: float = Field(description="Vectors about the output matrix")


class ExplainedValue(_View):
    """A tensor that would come back."""

    name: str
    dtype: DType
    shape: tuple[int, ...] = Field(description="At most: a run that ends early has fewer positions")
    axes: tuple[str, ...]
    bytes: int


class Explanation(_View):
    """What a plan would take and give."""

    model: str
    deployment: str
    runs: int = Field(description="Of the plan")
    cells: int | None = Field(description="Of the sweep; null without one")
    sequences: int = Field(description="Runs that are computed, each cell of the sweep one")
    layers: int = Field(description="Of the model")
    tokens: TokenCount
    rows: Rows
    shared: tuple[SharedRun, ...]
    operations: Operations
    memory: Memory
    returned_bytes: int
    charged: Charge
    scopes: tuple[str, ...] = Field(description="That the plan needs")
    missing_scopes: tuple[str, ...] = Field(description="Those of them that the caller has not")
    points: dict[str, str] = Field(
        description="Of each read and gradient (`run.name`) and write (`run.write.0`), the canonical point"
    )
    values: tuple[ExplainedValue, ...] = Field(description="In the order of their names")
