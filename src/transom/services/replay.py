"""Running a record again, and saying where it differs.

A replay believes nothing: it checks that the openings open the commitments, renders the prompt anew, and
generates every sequence again with the recorded parameters. On the deployment that answered, only the same
tokens, texts and logprobs to the bit are `EXACT`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from transom.access.keys.callers import Caller
from transom.backends.admission import Admission
from transom.backends.base import Backend
from transom.errors import GenerationFailed, InvalidRequest
from transom.records.identifiers import new_record_id
from transom.records.reading import RecordedRequest, RecordedSequence, read_request
from transom.schema.canonical import sha256
from transom.schema.completions import CompletionRequest
from transom.schema.generation import SamplingParams, SequenceRequest, SequenceResult
from transom.schema.measures import Measures
from transom.schema.openings import verify_openings
from transom.schema.randomness import is_own_seed
from transom.schema.record import RecordView, ReplayReport
from transom.schema.steering import Extension
from transom.services import artifacts, traces
from transom.services.ask import encode_prompts, render
from transom.services.findings import ENDINGS, Finding, compare
from transom.services.house import House
from transom.services.metering import Work, allow, reserve
from transom.services.retracing import retrace
from transom.services.steering import MAX_BYTES, Steering, artifacts_of, steer

_RENDER = Finding("OUTSIDE", "RENDER")


async def replay(house: House, caller: Caller, record_id: str) -> ReplayReport:
    """Run a record again.

    Raises:
        AccessDenied, Conflict, QuotaExceeded, QuotaUnavailable: as `metering.reserve`; a replay is charged
            as the request was, but for what it does not release.
        NotFound: there is no such record in the caller's project.
        EngineError: the engine could not answer now; this says nothing about the record.
    """
    await allow(house, caller, "records:replay")
    view = (await house.records.get(record_id, caller.project_id)).view()
    began = time.perf_counter()
    with house.occupied():
        finding = await _judge(house, view, caller)
    return ReplayReport(
        record=view.id,
        level=finding.level,
        reason=finding.reason,
        first_difference=finding.place,
        tokens=finding.tokens,
        elapsed_s=time.perf_counter() - began,
    )


async def _judge(house: House, view: RecordView, caller: Caller) -> Finding:
    # Only what the digest covers is read: the columns beside it are for lists.
    if sha256(base64.b64decode(view.envelope.payload)) != view.digest:
        return Finding("OUTSIDE", "DIGEST")
    if view.openings is None:
        return Finding("UNREPLAYABLE", "SHREDDED")
    broken = verify_openings(view.statement, view.openings)
    if broken:
        return Finding("OUTSIDE", f"OPENING {broken[0]}")
    return await _judge_openings(house, view.statement, view.openings, caller)


async def _judge_openings(
    house: House, statement: dict[str, Any], openings: dict[str, Any], caller: Caller
) -> Finding:
    predicate = statement["predicate"]
    if not is_own_seed(predicate["randomness"], json.loads(openings["request"]["json"])):
        return Finding("OUTSIDE", "SEED")
    backend = house.backends.get(predicate["model"])
    if backend is None or backend.served.deployment.digest != predicate["deployment"]:
        return Finding("UNREPLAYABLE", "DEPLOYMENT")
    request = read_request(statement, openings)
    if request.endpoint == traces.ENDPOINT:
        return await retrace(house, caller, backend, request)
    is_rendered = _rendered(backend, request) == request.prompts
    steering = await _steered(house, caller, backend, request) if is_rendered else _RENDER
    if isinstance(steering, Finding):
        return steering
    empty = not any(sequence.token_ids or sequence.scored_prompt for sequence in request.sequences)
    if empty and predicate["status"] != "complete":
        return Finding("UNREPLAYABLE", "EMPTY")
    return await _metered(house, caller, _Rerun(backend, request, steering, caller.project_id))


@dataclass(frozen=True, slots=True)
class _Rerun:
    """What the sequences of a replay are run with."""

    backend: Backend
    request: RecordedRequest
    steering: Steering | None
    project: str


async def _metered(house: House, caller: Caller, rerun: _Rerun) -> Finding:
    """Run again what the caller's limits allow to be run, and charge it."""
    request = rerun.request
    work = Work(
        backend=rerun.backend,
        prompts=[request.prompts[sequence.prompt_index] for sequence in request.sequences],
        sampling=_untold(request.sampling),
        candidates=1,
        is_steered=rerun.steering is not None,
    )
    meter = await reserve(house, caller, work, new_record_id())
    results: list[SequenceResult] = []
    try:
        return await _run_and_compare(rerun, results)
    finally:
        await meter.settle(work.used(results, meter.seconds))


def _untold(sampling: SamplingParams) -> SamplingParams:
    """The same without what only an answer releases: a finding tells no measure and no vector.

    So no bias reads anything out either. What is only scored stays so: it needs no scope to generate.
    """
    scored = sampling.prompt_logprobs is None and sampling.scores_prompt
    return replace(
        sampling,
        logit_bias=(),
        measures=None,
        prompt_measures=Measures() if scored else None,
        distributions=(),
        prompt_distributions=(),
    )


async def _run_and_compare(rerun: _Rerun, results: list[SequenceResult]) -> Finding:
    request, most = rerun.request, rerun.backend.max_sequences
    # One part, unless the queue was made smaller since the record was made.
    for start in range(0, len(request.sequences), most):
        results += await _run_part(rerun, request.sequences[start : start + most])
    for index, (sequence, again) in enumerate(zip(request.sequences, results, strict=True)):
        finding = compare(index, sequence, again, request.sampling)
        if finding is not None:
            return replace(finding, tokens=request.generated)
    return Finding("EXACT", tokens=request.generated)


def _rendered(backend: Backend, request: RecordedRequest) -> list[tuple[int, ...]] | None:
    """The prompts' token ids, rendered anew from what was sent; None where that is refused now."""
    try:
        if request.messages is not None:
            return [render(backend, request.messages)]
        body = request.body | {"model": backend.served.name}
        return encode_prompts(backend, CompletionRequest.model_validate(body))
    except (InvalidRequest, ValidationError):
        return None


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


async def _run_part(rerun: _Rerun, sequences: Sequence[RecordedSequence]) -> list[SequenceResult]:
    with rerun.backend.admit(rerun.project, len(sequences)) as admission:
        tasks = [asyncio.ensure_future(_run_again(rerun, sequence, admission)) for sequence in sequences]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def _run_again(rerun: _Rerun, sequence: RecordedSequence, admission: Admission) -> SequenceResult:
    sampling, steering = rerun.request.sampling, rerun.steering
    if sequence.finish_reason not in ENDINGS:
        # The client left, or the engine failed: what was generated until then is what can be checked.
        sampling = replace(sampling, max_tokens=len(sequence.token_ids))
    if not sequence.scored_prompt:
        sampling = replace(sampling, prompt_logprobs=None, prompt_measures=None, prompt_distributions=())
    result = SequenceResult()
    again = SequenceRequest(
        sequence_id=new_record_id(),
        prompt_token_ids=rerun.request.prompts[sequence.prompt_index],
        sampling=sampling,
        changes=None if steering is None else steering.by_prompt[sequence.prompt_index],
        choice=sequence.choice,
        project=rerun.project,
    )
    async with aclosing(rerun.backend.generate(again)) as deltas:
        async for delta in deltas:
            result.add(delta)
    admission.leave()
    if result.error is not None and result.param is None:
        raise GenerationFailed(result.error)
    return result
