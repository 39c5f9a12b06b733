"""One generating request, from admission to its durable record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any

import structlog

from transom.access.keys.callers import Caller
from transom.access.weights.exposure import Telling
from transom.backends.base import Backend
from transom.errors import GenerationFailed, PlanFailed, TransomError
from transom.records.identifiers import new_record_id
from transom.records.store import StoredRecord
from transom.schema.generation import Delta, Priority, SamplingParams, SequenceRequest, SequenceResult
from transom.schema.randomness import JointSeed
from transom.schema.record import Answer, Failure, RecordStatus, SeedSource
from transom.services.answering.steering import Steering, told_under_writes
from transom.services.exposing import count_told, take_back
from transom.services.house import House
from transom.services.metering import Meter, Work, reserve

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """That the prompts end in answers, whose tokens are to be judged."""

    questions: Sequence[int]
    """Of each prompt, how many tokens come before the answer."""
    sampling: SamplingParams
    """How they would have been drawn; `max_tokens` is the length of each."""

    def request(self, request: SequenceRequest, prompt: int) -> SequenceRequest:
        """The request for a whole prompt, as one that judges the answer in it."""
        question, tokens = self.questions[prompt], request.prompt_token_ids
        return replace(
            request,
            prompt_token_ids=tokens[:question],
            forced=tokens[question:],
            sampling=replace(self.sampling, max_tokens=len(tokens) - question),
        )

    @staticmethod
    def scored(result: SequenceResult) -> SequenceResult:
        """What came of it, as of a prompt that was scored: on record no token is said to be drawn."""
        known = result.prompt_logprobs
        if known is None or result.finish_reason != "length":
            return replace(result, tokens=[], token_texts=[], text="", prompt_logprobs=None)
        tokens = (replace(token, verdict=None) for token in result.tokens)
        return SequenceResult(prompt_logprobs=(*known, *tokens), finish_reason=result.finish_reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for, checked and rendered."""

    endpoint: str
    backend: Backend
    request: dict[str, Any]
    """The body as it came."""
    messages: Sequence[dict[str, Any]] | None
    prompts: Sequence[tuple[int, ...]]
    sampling: SamplingParams
    seed_source: SeedSource
    candidates: int
    """Sequences drawn from each prompt."""
    received: datetime
    steering: Steering | None = None
    """What is written inside."""
    joint: JointSeed | None = None
    """How the seed was made, where neither side picked it."""
    service_tier: str | None = None
    """What to say of the tier; None where the request said nothing of it."""
    priority: Priority = "interactive"
    judging: Judging | None = None
    """Where prompts end in answers to judge."""

    @property
    def judged(self) -> int:
        """Tokens of answers to judge."""
        return 0 if self.judging is None else sum(map(len, self.prompts)) - sum(self.judging.questions)


async def begin(house: House, caller: Caller, order: Order) -> Generation:
    """Hold what an order may use, and room for its sequences.

    Raises:
        AccessDenied, QuotaExceeded, QuotaUnavailable: as `metering.reserve`; nothing is held.
        PolicyRefused: under its writes it would tell too much of a weight matrix; nothing is held.
        EngineBusy: there is no room for all the sequences; nothing is held, and there is no record.
        EngineUnavailable: nothing can be taken now.
    """
    record_id = new_record_id()
    work = Work(
        backend=order.backend,
        prompts=order.prompts,
        sampling=order.sampling,
        candidates=order.candidates,
        is_steered=order.steering is not None,
        judged=order.judged,
    )
    meter = await reserve(house, caller, work, record_id)
    telling: Telling | None = None
    try:
        if order.steering is not None:
            told = partial(told_under_writes, work, order.steering.by_prompt)
            telling = await count_told(house, caller, order.backend, told)
        return Generation(house, caller, order, work, meter, record_id)
    except BaseException:
        await meter.release()
        await take_back(house, telling)
        raise


class Generation:
    """Runs an order's sequences side by side, and makes its record before it ends.

    Iterate `deltas()` to the end, or leave early: either way there is one record, and after a normal end it
    is durable. Close it in any case, for it holds room from the beginning.

    Raises:
        EngineBusy: there is no room for all the sequences; nothing was taken, and there is no record.
        EngineUnavailable: nothing can be taken now.
    """

    def __init__(
        self, house: House, caller: Caller, order: Order, work: Work, meter: Meter, record_id: str
    ) -> None:
        self._house = house
        self._caller = caller
        self._work = work
        self.order = order
        self.meter = meter
        self.record_id = record_id
        self.served = order.backend.served
        self.results = [SequenceResult() for _ in range(len(order.prompts) * order.candidates)]
        self.record: StoredRecord | None = None
        self._admission = order.backend.admit(caller.project_id, len(self.results))

    def close(self) -> None:
        """Give back the room of the sequences that did not come to their end."""
        self._admission.close()

    def place(self, index: int) -> tuple[int, int]:
        """(index of the prompt, choice) of the sequence at `index`."""
        return divmod(index, self.order.candidates)

    async def run(self) -> None:
        """Generate everything.

        Raises:
            PlanFailed: a write could not be done on the values that it met; the record says so.
            EngineError: the engine could not answer; the record says so.
            StorageError: there is no record, and so no answer.
        """
        with self._house.occupied(), self._admission:
            async with _Recorded(self), aclosing(self._merged()) as merged:
                async for index, delta in merged:
                    self._take(index, delta)

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """(index of the sequence, its delta) as they come; the record is durable when this ends.

        Raises:
            PlanFailed: a write could not be done on the values that it met; the record says so.
            EngineError: the engine could not answer; the record says so.
            StorageError: there is no record, and so no answer.
        """
        with self._house.occupied(), self._admission:
            async with _Recorded(self), aclosing(self._merged()) as merged:
                async for index, delta in merged:
                    self._take(index, delta)
                    yield index, delta

    async def keep(self, status: RecordStatus, failure: Failure | None) -> None:
        """Make the record, and charge what was used.

        Raises:
            StorageError: there is no record.
        """
        # A client that leaves cancels this coroutine; what was queued is written all the same.
        with self.meter.settlement(self._work.used(self._noted, self.meter.seconds)) as settlement:
            self.record = await self._house.records.append(self._answer(status, failure), settlement)

    @property
    def _noted(self) -> list[SequenceResult]:
        """What is on record of the sequences."""
        judging = self.order.judging
        return self.results if judging is None else [judging.scored(result) for result in self.results]

    def _take(self, index: int, delta: Delta) -> None:
        self.results[index].add(delta)
        if delta.error is not None and delta.param is not None:
            raise PlanFailed(delta.error, param=delta.param)
        if delta.error is not None:
            raise GenerationFailed(delta.error)

    def _merged(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """Deltas of all sequences in the order of their arrival."""
        requests = self._requests()
        # One sequence needs no task and no queue on its way.
        return self._side_by_side(requests) if len(requests) > 1 else self._sequence(0, requests[0])

    async def _side_by_side(
        self, requests: Sequence[SequenceRequest]
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        arrivals: asyncio.Queue[tuple[int, Delta | TransomError]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._pump(index, request, arrivals))
            for index, request in enumerate(requests)
        ]
        unfinished = len(tasks)
        try:
            while unfinished:
                index, news = await arrivals.get()
                if isinstance(news, TransomError):
                    raise news
                unfinished -= news.finish_reason is not None
                yield index, news
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(
        self, index: int, request: SequenceRequest, arrivals: asyncio.Queue[tuple[int, Delta | TransomError]]
    ) -> None:
        try:
            async with aclosing(self._sequence(index, request)) as arriving:
                async for arrival in arriving:
                    arrivals.put_nowait(arrival)
        except TransomError as error:
            arrivals.put_nowait((index, error))

    async def _sequence(
        self, index: int, request: SequenceRequest
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        """(index, delta) of one sequence, up to the delta that ends it.

        Raises:
            EngineError: there is no such delta.
        """
        try:
            async with aclosing(self.order.backend.generate(request)) as deltas:
                async for delta in deltas:
                    if delta.finish_reason is not None:
                        self._admission.leave()
                    yield index, delta
                    if delta.finish_reason is not None:
                        return
        except TransomError:
            raise
        except Exception as error:  # whoever waits for this sequence must not wait for ever
            log.error("sequence failed", exc_info=error)
            raise GenerationFailed("The engine met an error that it did not expect.") from error
        raise GenerationFailed("The sequence ended without a finish reason.")

    def _requests(self) -> list[SequenceRequest]:
        steering, judging = self.order.steering, self.order.judging
        requests = [
            SequenceRequest(
                sequence_id=f"{self.record_id}/{index}",
                prompt_token_ids=self.order.prompts[prompt],
                sampling=self.order.sampling,
                changes=None if steering is None else steering.by_prompt[prompt],
                choice=choice,
                project=self._caller.project_id,
                priority=self.order.priority,
            )
            for index, (prompt, choice) in enumerate(map(self.place, range(len(self.results))))
        ]
        if judging is None:
            return requests
        return [judging.request(each, self.place(index)[0]) for index, each in enumerate(requests)]

    def _answer(self, status: RecordStatus, failure: Failure | None) -> Answer:
        order = self.order
        return Answer(
            record_id=self.record_id,
            project_id=self._caller.project_id,
            key_id=self._caller.key_id,
            model=self.served.name,
            deployment=self.served.deployment.digest,
            endpoint=order.endpoint,
            received=order.received,
            answered=self._house.now(),
            status=status,
            request=order.request,
            messages=order.messages,
            prompts=order.prompts,
            sampling=order.sampling,
            seed_source=order.seed_source,
            n=order.candidates,
            sequences=[(*self.place(index), result) for index, result in enumerate(self._noted)],
            error=failure,
            writes=None if order.steering is None else order.steering.manifest,
            joint=None if order.joint is None else order.joint.said,
        )


class _Recorded:
    """Whatever happens within, a generation has its record when this is left."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        status, failure = ending_of(error)
        await self._generation.keep(status, failure)


def ending_of(error: BaseException | None) -> tuple[RecordStatus, Failure | None]:
    """What a record says of how its request ended: with this error, or with none."""
    if isinstance(error, TransomError):
        return "failed", Failure(code=error.code, message=error.message)
    return "complete" if error is None else "aborted", None
