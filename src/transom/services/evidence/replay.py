"""Replaying records, and saying where they differ.

A replay believes nothing: it checks that the openings open the commitments, renders the prompt anew, and
has the engine judge every recorded token in one pass over prompt and answer. On the deployment that answered,
only the same tokens, texts and logprobs to the bit are `EXACT`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from transom.access.keys.callers import Caller
from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.records.reading import RecordedRequest, read_request
from transom.schema.calibrations import Calibration
from transom.schema.canonical import sha256
from transom.schema.openings import verify_openings
from transom.schema.randomness import has_own_seed
from transom.schema.record import RecordView, ReplayReport
from transom.schema.steering import Extension
from transom.services.answering.asked import of_another_profile, read_body
from transom.services.answering.steering import MAX_BYTES, Steering, artifacts_of, steer
from transom.services.evidence import calibrations, rerunning
from transom.services.evidence.findings import ENDINGS, Finding
from transom.services.evidence.rerunning import Rerun
from transom.services.evidence.retracing import retrace
from transom.services.house import House
from transom.services.metering import allow
from transom.services.planning import artifacts
from transom.services.tracing import traces

_RENDER = Finding("OUTSIDE", "RENDER")
_DEPLOYMENT = Finding("UNREPLAYABLE", "DEPLOYMENT")


async def replay(house: House, caller: Caller, record_id: str) -> ReplayReport:
    """Replay a record; see `replay_all`."""
    (report,) = await replay_all(house, caller, [record_id])
    return report


async def replay_all(house: House, caller: Caller, record_ids: Sequence[str]) -> list[ReplayReport]:
    """Replay records, all in the same steps of the engine but for plans, which go one after the other.

    Raises:
        AccessDenied, Conflict, QuotaExceeded, QuotaUnavailable: as `metering.reserve`. The tokens of prompts
            and answers are charged, and nothing as released; those of all records of a model together,
            before any of them is computed.
        NotFound: there is no such record in the caller's project; nothing was replayed.
        EngineError: the engine could not answer now; this says nothing about the records.
    """
    await allow(house, caller, "records:replay")
    began = time.perf_counter()
    # Whoever names one that is not theirs hears of it before anything is computed.
    views = [(await house.records.get(record_id, caller.project_id)).view() for record_id in record_ids]
    findings = await judge(house, caller, views)
    seconds = time.perf_counter() - began
    return [report(view.id, finding, seconds) for view, finding in zip(views, findings, strict=True)]


async def judge(house: House, caller: Caller, views: Sequence[RecordView]) -> list[Finding]:
    """What replaying records shows; raises as `replay_all`.

    Args:
        house: where they are replayed.
        caller: who is charged; artifacts are looked up in this project.
        views: the records.
    """
    with house.occupied():
        prepared = [await _prepare(house, view, caller) for view in views]
        await _run(house, caller, [each for each in prepared if isinstance(each, Rerun)])
        return [await _conclude(house, caller, each) for each in prepared]


def report(record_id: str, finding: Finding, seconds: float) -> ReplayReport:
    """A finding, as it is told."""
    return ReplayReport(
        record=record_id,
        level=finding.level,
        reason=finding.reason,
        first_difference=finding.place,
        tokens=finding.tokens,
        differing=finding.differing,
        margins=finding.margins,
        elapsed_s=seconds,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The record of a plan, which is carried out again."""

    backend: Backend
    request: RecordedRequest


async def _run(house: House, caller: Caller, reruns: Sequence[Rerun]) -> None:
    for backend in {id(rerun.backend): rerun.backend for rerun in reruns}.values():
        await rerunning.run(house, caller, [rerun for rerun in reruns if rerun.backend is backend])


async def _conclude(house: House, caller: Caller, prepared: Finding | Rerun | _Plan) -> Finding:
    if isinstance(prepared, _Plan):
        return await retrace(house, caller, prepared.backend, prepared.request)
    return prepared.finding if isinstance(prepared, Rerun) else prepared


async def _prepare(house: House, view: RecordView, caller: Caller) -> Finding | Rerun | _Plan:
    """What can be concluded at once, or what is left to compute."""
    # Only what the digest covers is read: the columns beside it are for lists.
    if sha256(base64.b64decode(view.envelope.payload)) != view.digest:
        return Finding("OUTSIDE", "DIGEST")
    if view.openings is None:
        return Finding("UNREPLAYABLE", "SHREDDED")
    broken = verify_openings(view.statement, view.openings)
    if broken:
        return Finding("OUTSIDE", f"OPENING {broken[0]}")
    return await _open(house, view.statement, view.openings, caller)


async def _open(
    house: House, statement: dict[str, Any], openings: dict[str, Any], caller: Caller
) -> Finding | Rerun | _Plan:
    predicate = statement["predicate"]
    if not has_own_seed(statement, json.loads(openings["request"]["json"])):
        return Finding("OUTSIDE", "SEED")
    request = read_request(statement, openings)
    backend = house.backends.get(predicate["model"])
    calibration = None if backend is None else await _calibration(house, backend, predicate, request)
    if backend is None or isinstance(calibration, Finding):
        return _DEPLOYMENT
    if request.endpoint == traces.ENDPOINT:
        return _Plan(backend, request)
    wrong = _departure(backend, request, predicate, is_other=calibration is not None)
    steering = await _steered(house, caller, backend, request) if wrong is None else wrong
    if isinstance(steering, Finding):
        return steering
    empty = not any(sequence.token_ids or sequence.scored_prompt for sequence in request.sequences)
    if empty and predicate["status"] != "complete":
        return Finding("UNREPLAYABLE", "EMPTY")
    return Rerun(backend, request, steering, calibration)


def _departure(
    backend: Backend, request: RecordedRequest, predicate: dict[str, Any], *, is_other: bool
) -> Finding | None:
    """Where the record says that something else was asked than its body asks for."""
    asked = read_body(backend, request)
    if asked is None:
        return _RENDER
    if is_other:
        asked = of_another_profile(asked, request)
    complete = predicate["status"] == "complete"
    reason = asked.departs(request, predicate["request"]["n"], complete=complete)
    if reason is not None:
        return _RENDER if reason == "RENDER" else Finding("OUTSIDE", "REQUEST")
    endings = {sequence.finish_reason for sequence in request.sequences}
    # A whole answer has no sequence that broke off.
    return Finding("OUTSIDE", "ENDING") if complete and not endings <= set(ENDINGS) else None


async def _calibration(
    house: House, backend: Backend, predicate: dict[str, Any], request: RecordedRequest
) -> Calibration | Finding | None:
    """By what another deployment's answers are judged; None for those of the one that is served."""
    served = backend.served.deployment
    if served.digest == predicate["deployment"]:
        return None
    if request.endpoint == traces.ENDPOINT or not request.generated:
        return _DEPLOYMENT  # only generated tokens are calibrated
    known = await calibrations.between(house, predicate["deployment"], served)
    return _DEPLOYMENT if known is None else known


async def _steered(
    house: House, caller: Caller, backend: Backend, request: RecordedRequest
) -> Steering | Finding | None:
    """The writes, resolved anew from what was sent; a finding where they are not those on record."""
    prompts, most = request.prompts, request.sampling.max_tokens
    try:
        writes = Extension.model_validate(request.body.get("transom") or {}).write
        given = await artifacts.take(house, caller, artifacts_of(writes), MAX_BYTES)
        # As many sequences as there were then could start.
        found = await asyncio.to_thread(steer, backend, writes, given, prompts, most, 1)
    except (InvalidRequest, ValidationError) as error:
        gone = isinstance(error, InvalidRequest) and error.reason == "unknown_artifact"
        return Finding("UNREPLAYABLE", "ARTIFACT") if gone else _RENDER
    told = None if found is None else found.manifest
    return found if told == request.writes else _RENDER
