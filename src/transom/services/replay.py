"""Running a record again, and saying where it differs.

A replay believes nothing: it checks that the openings open the commitments, renders the prompt anew, and
generates every sequence again with the recorded parameters. On the deployment that answered, only the same
tokens, texts and logprobs to the bit are `EXACT`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, replace

from transom.access.callers import Caller
from transom.backends.base import Backend
from transom.records.identifiers import new_record_id
from transom.records.openings import Ranked, ranked_digest, verify_openings
from transom.records.reading import RecordedRequest, RecordedSequence, read_request
from transom.schema.completions import CompletionRequest
from transom.schema.generation import SequenceRequest, SequenceResult, TokenLogprob
from transom.schema.record import Difference, RecordView, ReplayLevel, ReplayReport
from transom.services.ask import encode_prompts, render
from transom.services.house import House


@dataclass(frozen=True, slots=True)
class Finding:
    """What a replay concluded; reason and place are None where nothing differs."""

    level: ReplayLevel
    reason: str | None = None
    place: Difference | None = None


async def replay(house: House, caller: Caller, record_id: str) -> ReplayReport:
    """Run a record again.

    Raises:
        NotFound: there is no such record in the caller's project.
        EngineError: the engine could not answer now; this says nothing about the record.
    """
    view = (await house.records.get(record_id, caller.project_id)).view()
    began = time.perf_counter()
    finding = await _judge(house, view)
    return ReplayReport(
        record=view.id,
        level=finding.level,
        reason=finding.reason,
        first_difference=finding.place,
        tokens=sum(len(sequence["token_ids"]["token_ids"]) for sequence in view.openings["sequences"]),
        elapsed_s=time.perf_counter() - began,
    )


async def _judge(house: House, view: RecordView) -> Finding:
    broken = verify_openings(view.statement, view.openings)
    if broken:
        return Finding("OUTSIDE", f"OPENING {broken[0]}")
    backend = house.backends.get(view.model)
    if backend is None or backend.served.deployment.digest != view.deployment:
        return Finding("UNREPLAYABLE", "DEPLOYMENT")
    request = read_request(view.statement, view.openings)
    if not any(sequence.token_ids or sequence.prompt_logprobs for sequence in request.sequences):
        return Finding("UNREPLAYABLE", "EMPTY") if view.status != "complete" else Finding("EXACT")
    if _rendered(backend, request) != request.prompts:
        return Finding("OUTSIDE", "RENDER")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run_again(backend, request, sequence)) for sequence in request.sequences]
    complete = view.status == "complete"
    for index, (sequence, task) in enumerate(zip(request.sequences, tasks, strict=True)):
        finding = _compare(index, sequence, task.result(), complete=complete)
        if finding is not None:
            return finding
    return Finding("EXACT")


def _rendered(backend: Backend, request: RecordedRequest) -> list[tuple[int, ...]]:
    """The prompts' token ids, rendered anew from what was sent."""
    if request.messages is not None:
        return [render(backend, request.messages)]
    body = request.body | {"model": backend.served.name}
    return encode_prompts(backend, CompletionRequest.model_validate(body))


async def _run_again(
    backend: Backend, request: RecordedRequest, sequence: RecordedSequence
) -> SequenceResult:
    sampling = request.sampling
    if sequence.finish_reason is None:
        # The client left, or the engine failed: what was generated until then is what can be checked.
        sampling = replace(sampling, max_tokens=len(sequence.token_ids))
    if sequence.prompt_logprobs is None:
        sampling = replace(sampling, prompt_logprobs=None)
    result = SequenceResult()
    again = SequenceRequest(
        sequence_id=new_record_id(),
        prompt_token_ids=request.prompts[sequence.prompt_index],
        sampling=sampling,
        choice=sequence.choice,
    )
    async with aclosing(backend.generate(again)) as deltas:
        async for delta in deltas:
            result.add(delta)
    return result


def _compare(
    index: int, recorded: RecordedSequence, again: SequenceResult, *, complete: bool
) -> Finding | None:
    for position, token in enumerate(recorded.token_ids):
        place = Difference(sequence=index, position=position)
        if position >= len(again.tokens) or again.tokens[position].token_id != token:
            return Finding("OUTSIDE", f"TOKEN at {position}", place)
        if again.tokens[position].logprob != recorded.logprobs[position]:
            return Finding("OUTSIDE", f"LOGPROB at {position}", place)
    if recorded.top is not None and ranked_digest(recorded.top) != ranked_digest(_tops(again.tokens)):
        return Finding("OUTSIDE", "TOP LOGPROBS", Difference(sequence=index, position=0))
    if recorded.prompt_logprobs is not None and not _same_prompt(recorded.prompt_logprobs, again):
        return Finding("OUTSIDE", "PROMPT LOGPROBS", Difference(sequence=index, position=0))
    ending = (recorded.token_ids, recorded.finish_reason, recorded.text)
    if complete and ending != (again.token_ids, again.finish_reason, again.text):
        return Finding("OUTSIDE", "ENDING", Difference(sequence=index, position=len(recorded.token_ids)))
    return None


def _same_prompt(recorded: Ranked, again: SequenceResult) -> bool:
    found = [
        [] if token is None else [(token.token_id, token.logprob), *token.top]
        for token in again.prompt_logprobs or ()
    ]
    return ranked_digest(recorded) == ranked_digest(found)


def _tops(tokens: list[TokenLogprob]) -> Ranked:
    return [token.top for token in tokens]
