"""What a plan would take and give: told by the rules by which it would run, and without running it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transom.access.keys.callers import Caller
from transom.access.quotas import VECTOR, Amounts, Standing
from transom.backends.base import Backend
from transom.records.identifiers import new_record_id
from transom.schema.beginnings import Beginnings, find_beginnings
from transom.schema.dimensions import Dimensions
from transom.schema.explanations import (
    Charge,
    ExplainedValue,
    Explanation,
    Memory,
    Operations,
    Rows,
    SharedRun,
    TokenCount,
)
from transom.schema.plan import Plan
from transom.schema.program import RunSpec
from transom.services.house import House
from transom.services.metering import reserve
from transom.services.planning import artifacts
from transom.services.planning.forms import Form
from transom.services.tracing.grading import gradient_bytes, widths_of
from transom.services.tracing.traces import Task, prepare


@dataclass(frozen=True, slots=True)
class _Question:
    """A question about a plan: a request, and nothing else of what is metered."""

    backend: Backend

    @property
    def scopes(self) -> list[str]:
        """None: what is told is told of the plan, and nothing of what the model computes."""
        return []

    @property
    def demand(self) -> Amounts:
        """A request."""
        return Amounts()


async def explain(house: House, caller: Caller, plan: Plan) -> tuple[Explanation, list[Standing]]:
    """What a plan would take and give the caller, and the limits that they stand under.

    Raises:
        InvalidRequest, NotFound: as for the plan itself.
        AccessDenied, QuotaExceeded, QuotaUnavailable: see `metering.reserve`; scopes are not asked for.
    """
    known = await artifacts.known(house, caller, plan)
    task = await asyncio.to_thread(prepare, house, plan, known)
    question = _Question(task.backend)
    meter = await reserve(house, caller, question, new_record_id())
    try:
        held = (await house.entitlements.of(caller)).scopes
        found = await asyncio.to_thread(explanation_of, plan, task, held)
    finally:
        await meter.settle(question.demand)
    return found, meter.standings


def explanation_of(plan: Plan, task: Task, held: frozenset[str]) -> Explanation:
    """What a plan, resolved, would take and give whoever holds these scopes."""
    served, resolved, sizes = task.backend.served, task.resolved, task.sizes
    dimensions = task.backend.dimensions
    lines = resolved.lines.values()
    shared = shared_by(resolved.runs, dimensions)
    work = Work(resolved.runs, {name: line.end for name, line in resolved.lines.items()}, shared, dimensions)
    scopes = tuple(dict.fromkeys(task.scopes))
    return Explanation(
        model=served.name,
        deployment=served.deployment.digest,
        runs=len(plan.runs),
        cells=None if plan.sweep is None else len(resolved.runs) - len(plan.runs) + 1,
        sequences=len(resolved.runs),
        layers=dimensions.layers,
        tokens=TokenCount(
            prompt=sum(line.prompt for line in lines), generated=sum(line.most for line in lines)
        ),
        rows=work.rows(sizes.looked),
        shared=work.shared(),
        operations=work.operations(sizes.looked),
        memory=_memory(task, shared),
        returned_bytes=sizes.returned,
        charged=_charge(task.demand),
        scopes=scopes,
        missing_scopes=tuple(scope for scope in scopes if scope not in held),
        points=resolved.echoes,
        values=tuple(_value(name, form) for name, form in sorted(sizes.told.items())),
    )


def shared_by(runs: Sequence[RunSpec], dimensions: Dimensions) -> Beginnings:
    """What runs have in common, on a model of these dimensions."""
    if not dimensions.enters:
        return Beginnings()
    return find_beginnings(runs, width=dimensions.width, cached=dimensions.cached)


@dataclass(frozen=True, slots=True)
class Work:
    """What the runs of a plan compute."""

    runs: Sequence[RunSpec]
    ends: dict[str, int]
    """One past the last position of each run, at most."""
    beginnings: Beginnings
    dimensions: Dimensions

    def rows(self, output: int) -> Rows:
        """In rows, each for every layer."""
        return Rows(
            alone=self.dimensions.layers * sum(self.ends.values()),
            computed=sum(self._computed(run) for run in self.runs),
            gradients=self.dimensions.layers * sum(run.graded for run in self.runs),
            output=output,
        )

    def shared(self) -> tuple[SharedRun, ...]:
        """The runs in whose middle others begin."""
        begin, saved = Counter[str](), Counter[str]()
        for name, each in self.beginnings.of.items():
            begin[each.base] += 1
            saved[each.base] += self.dimensions.layers * self.ends[name]
            saved[each.base] -= self._layers(name) * (self.ends[name] - each.position)
        return tuple(
            SharedRun(
                run=name,
                begin=begin[name],
                layers=base.layers,
                position=base.position,
                saved=saved[name],
                bytes=4 * base.numbers,
            )
            for name, base in self.beginnings.bases.items()
        )

    def operations(self, output: int) -> Operations:
        """In floating-point operations."""
        size = self.dimensions
        forward = sum(size.forward(self._computed(run), self._pairs(run)) for run in self.runs)
        gradients = sum(
            size.forward(size.layers * run.graded, size.layers * run.graded * (len(run.token_ids) + 1) // 2)
            for run in self.runs
        )
        seen = size.output(output)
        return Operations(forward=forward, gradients=gradients, output=seen, total=forward + gradients + seen)

    def _layers(self, run: str) -> int:
        return self.dimensions.layers - self.beginnings.layer_of(run)

    def _computed(self, run: RunSpec) -> int:
        return self._layers(run.name) * (self.ends[run.name] - self.beginnings.position_of(run.name))

    def _pairs(self, run: RunSpec) -> int:
        """Each row attends to itself and to all before it, at most; a window sees fewer."""
        first, end = self.beginnings.position_of(run.name), self.ends[run.name]
        return self._layers(run.name) * (end * (end + 1) - first * (first + 1)) // 2


def _memory(task: Task, shared: Beginnings) -> Memory:
    backend, runs, sizes = task.backend, task.resolved.runs, task.sizes
    kept = 4 * sum(base.numbers for base in shared.bases.values())
    size = backend.dimensions
    widths = widths_of(backend.points)
    gradients = max(gradient_bytes(run, len(run.token_ids), size, widths) for run in runs)
    copy = size.copy if gradients else 0
    return Memory(
        values=sizes.kept - sizes.captured,
        captured=sizes.captured,
        shared=kept,
        gradients=gradients,
        copy_of_model=copy,
        total=sizes.kept + kept + gradients + copy,
        spilled=sizes.spilled,
    )


def _charge(demand: Amounts) -> Charge:
    return Charge(
        requests=demand.requests,
        tokens=demand.tokens,
        engine_seconds=demand.engine_us / 1e6,
        internals_bytes=demand.internals_bytes,
        released_rank=demand.released_rank / VECTOR,
    )


def _value(name: str, form: Form) -> ExplainedValue:
    return ExplainedValue(
        name=name,
        dtype="int32" if form.is_integer else "float32",
        shape=form.shape,
        axes=form.axes,
        bytes=4 * form.numbers,
    )
