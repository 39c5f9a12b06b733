"""Carrying a recorded plan out again: the same tokens and the same bytes of every tensor, or a difference."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from transom.access.keys.callers import Caller
from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.records.identifiers import new_record_id
from transom.records.reading import RecordedRequest
from transom.records.statement import manifest
from transom.schema.plan import Plan
from transom.schema.program import Traced
from transom.services.evidence.findings import Finding, compare
from transom.services.house import House
from transom.services.metering import reserve
from transom.services.planning import artifacts
from transom.services.planning.resolved import Known
from transom.services.tracing import traces


async def retrace(house: House, caller: Caller, backend: Backend, request: RecordedRequest) -> Finding:
    """Judge the record of a plan, whose openings were verified.

    Raises:
        AccessDenied, Conflict, QuotaExceeded, QuotaUnavailable: see `metering.reserve`. Tokens and engine
            time are charged as for the plan; a finding tells no number, so nothing is released.
        EngineError: the engine could not answer now; this says nothing about the record.
        InvalidRequest: nor does this: the disk has no room for what the plan reads.
    """
    if request.tensors is None:
        return Finding("UNREPLAYABLE", "EMPTY")
    plan = _plan(backend, request)
    known = {} if plan is None else await artifacts.known(house, caller, plan)
    if plan is not None and any(ref.sha256 not in known for _, ref in plan.artifacts()):
        return Finding("UNREPLAYABLE", "ARTIFACT")
    task = None if plan is None else _resolved(house, plan, known)
    if task is None or [run.token_ids for run in task.resolved.runs] != request.prompts:
        return Finding("OUTSIDE", "RENDER")
    try:
        traced = await _again(house, caller, task)
    except InvalidRequest as error:
        if error.reason != "unknown_artifact":
            raise
        return Finding("UNREPLAYABLE", "ARTIFACT")
    return _compare(task, traced, request, request.tensors)


def _plan(backend: Backend, request: RecordedRequest) -> Plan | None:
    """The plan as it was sent; None where that is refused now."""
    try:
        return Plan.model_validate(request.body | {"model": backend.served.name})
    except ValidationError:
        return None


def _resolved(house: House, plan: Plan, known: Known) -> traces.Task | None:
    """The plan, resolved anew; None where that is refused now."""
    try:
        return traces.prepare(house, plan, known)
    except InvalidRequest:
        return None


async def _again(house: House, caller: Caller, task: traces.Task) -> Traced:
    name = new_record_id()
    meter = await reserve(house, caller, traces.Untold(task), name)
    traced: Traced | None = None
    try:
        with task.room(house, caller), task.backend.admit(caller.project_id, task.sequences_at_once):
            traced = await traces.carry_out(house, caller.project_id, task, name)
            return traced
    finally:
        house.spool.remove(name)
        await meter.settle(traces.Untold(task).used(traced, meter.seconds))


def _compare(task: traces.Task, traced: Traced, request: RecordedRequest, told: list[list[Any]]) -> Finding:
    tokens = request.generated
    results = task.sequences(traced)
    if len(results) != len(request.sequences):
        return Finding("OUTSIDE", "RUNS", tokens=tokens)
    for index, (sequence, (_, _, again)) in enumerate(zip(request.sequences, results, strict=True)):
        finding = compare(index, sequence, again, request.sampling)
        if finding is not None:
            return Finding(finding.level, finding.reason, finding.place, tokens)
    for before, now in zip(told, manifest(traced.tensors), strict=False):
        if before != now:
            return Finding("OUTSIDE", f"TENSOR {before[0]}", tokens=tokens)
    if len(told) != len(traced.tensors):
        return Finding("OUTSIDE", "TENSORS", tokens=tokens)
    return Finding("EXACT", tokens=tokens)
