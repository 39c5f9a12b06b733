"""Verifying what was generated: one pass over prompt and answer of each sequence, many in the same steps.

Nothing is generated again. At each position the engine says which token it would have drawn after those that
are on record, and the answer is the recorded one exactly if that is the recorded token everywhere: by
induction, generating would have come to the same tokens (decision 24).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from transom.access.keys.callers import Caller
from transom.access.quotas import Amounts
from transom.backends.admission import Admission
from transom.backends.base import Backend
from transom.errors import GenerationFailed
from transom.records.identifiers import new_record_id
from transom.records.reading import RecordedRequest, RecordedSequence
from transom.schema.calibrations import Calibration
from transom.schema.generation import SamplingParams, SequenceRequest, SequenceResult
from transom.schema.measures import Measures
from transom.services.answering.ask import MAX_SEQUENCES
from transom.services.answering.steering import Steering
from transom.services.evidence.findings import ENDINGS, Finding, compare, counted, within
from transom.services.house import House
from transom.services.metering import ENGINE_US_PER_TOKEN, Work, reserve


@dataclass(slots=True)
class Rerun:
    """A record whose sequences are to be judged, and what came of it."""

    backend: Backend
    request: RecordedRequest
    steering: Steering | None
    calibration: Calibration | None = None
    """By which another profile's answers are judged; None for those of the deployment itself."""
    results: list[SequenceResult] = field(default_factory=list)
    """One for each sequence; those that did not come to their end are empty."""

    def __post_init__(self) -> None:
        self.results = [SequenceResult() for _ in self.request.sequences]

    @property
    def scopes(self) -> list[str]:
        """What the caller needs: what the request needed, but for what only an answer releases."""
        prompts = self.request.prompts
        is_steered = self.steering is not None
        sampling = _untold(self.request.sampling)
        return Work(
            backend=self.backend, prompts=prompts, sampling=sampling, candidates=1, is_steered=is_steered
        ).scopes

    @property
    def finding(self) -> Finding:
        """Where it came out differently."""
        request = self.request
        if self.calibration is not None:
            found_within = within(self.calibration, request.sequences, self.results)
            return counted(found_within, request.generated, self.results)
        found = (
            compare(index, sequence, again, request.sampling)
            for index, (sequence, again) in enumerate(zip(request.sequences, self.results, strict=True))
        )
        first = next((finding for finding in found if finding is not None), Finding("EXACT"))
        return counted(first, request.generated, self.results)

    def tokens(self, index: int) -> int:
        """Tokens of a sequence's prompt and answer."""
        sequence = self.request.sequences[index]
        return len(self.request.prompts[sequence.prompt_index]) + len(sequence.token_ids)


@dataclass(frozen=True, slots=True)
class Reruns:
    """What records ask of one model together: each token of prompts and answers is computed once.

    No number leaves: a finding says that nothing differs, or where. So nothing is released.
    """

    backend: Backend
    reruns: Sequence[Rerun]

    @property
    def scopes(self) -> list[str]:
        """What they need."""
        return list(dict.fromkeys(scope for rerun in self.reruns for scope in rerun.scopes))

    @property
    def demand(self) -> Amounts:
        """The most that they can use."""
        tokens = sum(rerun.tokens(index) for rerun, index in self.sequences)
        return Amounts(tokens=tokens, engine_us=ENGINE_US_PER_TOKEN * tokens)

    def used(self, seconds: float) -> Amounts:
        """What they used: the sequences that came to their end."""
        done = [place for place in self.sequences if place[0].results[place[1]].finish_reason is not None]
        tokens = sum(rerun.tokens(index) for rerun, index in done)
        return Amounts(tokens=tokens, engine_us=round(1e6 * seconds))

    @property
    def sequences(self) -> list[tuple[Rerun, int]]:
        """Every sequence, with its index in its record."""
        return [(rerun, index) for rerun in self.reruns for index in range(len(rerun.results))]


async def run(house: House, caller: Caller, reruns: Sequence[Rerun]) -> None:
    """Judge the sequences of records, all of one model and side by side, and charge for them.

    Raises:
        AccessDenied, Conflict, QuotaExceeded, QuotaUnavailable: as `metering.reserve`.
        EngineError: the engine could not answer now; this says nothing about the records.
    """
    work = Reruns(reruns[0].backend, reruns)
    meter = await reserve(house, caller, work, new_record_id())
    try:
        # One part, unless there are more than may wait at once.
        most = min(MAX_SEQUENCES, work.backend.max_sequences)
        sequences = work.sequences
        for start in range(0, len(sequences), most):
            await _run_part(work.backend, caller.project_id, sequences[start : start + most])
    finally:
        await meter.settle(work.used(meter.seconds))


async def _run_part(backend: Backend, project: str, sequences: Sequence[tuple[Rerun, int]]) -> None:
    with backend.admit(project, len(sequences)) as admission:
        tasks = [
            asyncio.ensure_future(_judge(rerun, index, project, admission)) for rerun, index in sequences
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def _judge(rerun: Rerun, index: int, project: str, admission: Admission) -> None:
    sequence, result = rerun.request.sequences[index], rerun.results[index]
    request = SequenceRequest(
        sequence_id=new_record_id(),
        prompt_token_ids=rerun.request.prompts[sequence.prompt_index],
        sampling=_sampling(rerun.request.sampling, sequence),
        changes=None if rerun.steering is None else rerun.steering.by_prompt[sequence.prompt_index],
        forced=tuple(sequence.token_ids),
        choice=sequence.choice,
        project=project,
    )
    async with aclosing(rerun.backend.generate(request)) as deltas:
        async for delta in deltas:
            result.add(delta)
    admission.leave()
    if result.error is not None and result.param is None:
        raise GenerationFailed(result.error)


def _sampling(sampling: SamplingParams, sequence: RecordedSequence) -> SamplingParams:
    if sequence.finish_reason not in ENDINGS:
        # The client left, or the engine failed: what was generated until then is what can be checked.
        sampling = replace(sampling, max_tokens=len(sequence.token_ids))
    if not sequence.scored_prompt:
        sampling = replace(sampling, prompt_logprobs=None, prompt_measures=None, prompt_distributions=())
    return sampling


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
