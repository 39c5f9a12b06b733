"""Looking and reaching inside a model by a plan, from admission to a durable record."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transom.access.keys.callers import Caller
from transom.access.quotas import VECTOR, Amounts
from transom.access.weights.exposure import Telling
from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.records.identifiers import new_record_id
from transom.schema.changes import TensorData
from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.matrices import Matrices
from transom.schema.plan import Plan
from transom.schema.program import ModelPoint, Program, Traced
from transom.schema.record import Answer, Failure, RecordStatus
from transom.services.answering.generation import ending_of
from transom.services.exposing import count_told, matrices_of, take_back
from transom.services.house import House
from transom.services.metering import ENGINE_US_PER_TOKEN, Meter, reserve
from transom.services.planning import artifacts
from transom.services.planning.resolved import Known, Resolved
from transom.services.planning.sizes import Sizes, sizes_of
from transom.services.planning.telling import numbers_told
from transom.services.spool import Kept
from transom.services.tracing.grading import check_memory, widths_of
from transom.services.tracing.resolving import Resolver

ENDPOINT = "/v1/traces"

MAX_ANSWER_BYTES = 1 << 30
"""Of values in one answer; more are fetched in parts."""

PART_BYTES = 64 << 20
"""Size of a part of a result's file; the last one may be smaller."""

MAX_JSON_BYTES = 16 << 20
"""Of values as JSON, whose text is built in memory."""

_JSON_NUMBER = 16
"""Characters of a float32 and what stands around it, at most."""


@dataclass(frozen=True, slots=True)
class Task:
    """A plan that can be carried out, and what it takes."""

    backend: Backend
    resolved: Resolved
    sizes: Sizes
    keeps: bool = False
    """Whether its result is kept to be fetched in parts."""

    @property
    def scopes(self) -> list[str]:
        """What it needs."""
        runs = self.resolved.runs
        reads = [read for run in runs for read in run.reads]
        needed = []
        if any(not read.name.startswith("_") for read in reads):
            needed.append("internals:read")
        if any(run.writes for run in runs):
            needed.append("internals:write")
        if any(run.grad is not None for run in runs):
            needed.append("internals:grad")
        if any(run.sampling.max_tokens for run in runs):
            needed.append("model:sample")
        lenses = [read.unembed for read in reads if read.reduce == "unembed"]
        if lenses or any(run.sampling.logprobs is not None for run in runs):
            needed.append("model:logprobs")
        if any(not (lens.topk or lens.targets) for lens in lenses):
            needed.append("model:distributions")
        return needed

    @property
    def demand(self) -> Amounts:
        """The most that it can use."""
        return Amounts(
            tokens=self.sizes.tokens,
            engine_us=ENGINE_US_PER_TOKEN * max(self.sizes.tokens, self.sizes.rows),
            internals_bytes=self.sizes.returned,
            released_rank=self._released(self.sizes.vectors),
        )

    def used(self, traced: Traced | None, seconds: float) -> Amounts:
        """What it used, however it ended."""
        prompts = sum(line.prompt for line in self.resolved.lines.values())
        if traced is None:
            return Amounts(tokens=prompts, engine_us=round(1e6 * seconds))
        generated = sum(len(run.tokens) for run in traced.generated)
        told = sum(4 * math.prod(tensor.shape) for tensor in traced.tensors)
        return Amounts(
            tokens=prompts + generated,
            engine_us=round(1e6 * seconds),
            internals_bytes=min(told, self.sizes.returned),
            released_rank=self._released(self.sizes.vectors),
        )

    @property
    def sequences_at_once(self) -> int:
        """Room to ask for. A plan's runs take turns where there are more of them than a request may start."""
        return min(len(self.resolved.runs), self.backend.max_sequences)

    @property
    def matrices(self) -> Matrices:
        """Those of the model."""
        return matrices_of(self.backend)

    @property
    def told(self) -> dict[str, int]:
        """Numbers that are told of each place inside, at most."""
        layers = self.matrices.layers
        return numbers_told(self.resolved, self.sizes.forms, self.backend.points, layers)

    def room(self, house: House, caller: Caller) -> AbstractContextManager[None]:
        """Room on disk for while it runs; see `Spool.room`."""
        brought = 4 * sum(math.prod(needed.shape) for needed in self.resolved.artifacts.values())
        beside, returned = self.sizes.spilled + brought, self.sizes.returned
        return house.spool.room(caller.project_id, beside, returned, keeps=self.keeps)

    def program(
        self, name: str, project: str, file: Path, brought: Mapping[str, TensorData] = MappingProxyType({})
    ) -> Program:
        """What the engine is given, with the tensors of artifacts that were brought for it."""
        return Program(
            trace_id=name,
            project=project,
            runs=tuple(self.resolved.runs),
            derive=tuple(self.resolved.derive),
            returns=self.resolved.returns,
            tensors=self.resolved.tensors | dict(brought),
            file=str(file),
            spilled=self.sizes.spilled,
            part_bytes=PART_BYTES * self.keeps,
        )

    def sequences(self, traced: Traced) -> list[tuple[int, int, SequenceResult]]:
        """(index of the run, 0, what it generated), of the runs that generated."""
        index = {run.name: number for number, run in enumerate(self.resolved.runs)}
        decode = self.backend.tokenizer.decode
        found = []
        for run in traced.generated:
            result = SequenceResult(
                tokens=list(run.tokens),
                text=decode([token.token_id for token in run.tokens], skip_special_tokens=True),
                finish_reason=run.finish_reason,
            )
            found.append((index[run.name], 0, result))
        return found

    def _released(self, numbers: int) -> int:
        """Numbers of logprobs over the vocabulary in millionths of vectors; what the lens tells counts so."""
        return -(-VECTOR * numbers // self.backend.tokenizer.vocab_size)


@dataclass(frozen=True, slots=True)
class Untold:
    """A task of which nothing is told: its values are only held against others."""

    task: Task

    @property
    def backend(self) -> Backend:
        """Of the model."""
        return self.task.backend

    @property
    def scopes(self) -> list[str]:
        """What it needs."""
        return self.task.scopes

    @property
    def demand(self) -> Amounts:
        """The most that it can use."""
        return replace(self.task.demand, internals_bytes=0, released_rank=0)

    def used(self, traced: Traced | None, seconds: float) -> Amounts:
        """What it used, however it ended."""
        return replace(self.task.used(traced, seconds), internals_bytes=0, released_rank=0)


@dataclass(frozen=True, slots=True)
class Trace:
    """What came of a plan."""

    record_id: str
    backend: Backend
    meter: Meter
    task: Task
    traced: Traced
    file: Path
    """Of the values, as safetensors; whoever has it deletes it, unless it is kept."""
    kept: Kept | None = None


def points(house: House, model: str | None) -> tuple[Backend, list[ModelPoint]]:
    """The points of a model.

    Raises:
        InvalidRequest, NotFound: no model is named, or none that is served.
        EngineUnavailable: it is still loading.
    """
    backend = house.backend(model)
    _ = backend.served
    return backend, list(backend.points)


def prepare(house: House, plan: Plan, known: Known = MappingProxyType({})) -> Task:
    """A plan against the model that it names: what it will take, before anything runs.

    Args:
        house: that serves the model.
        plan: the plan.
        known: the artifacts that there are for it.

    Raises:
        InvalidRequest: the model or the project has not what is asked for, or it would be too large; names
            the field.
        NotFound: the model is not served here.
    """
    backend = house.backend(plan.model)
    resolved = Resolver(backend, plan, known).resolve()
    check_memory(resolved.runs, backend.dimensions, widths_of(backend.points))
    sizes = sizes_of(resolved, backend.points, backend.tokenizer.vocab_size)
    if plan.format == "json" and sizes.returned // 4 * _JSON_NUMBER > MAX_JSON_BYTES:
        raise InvalidRequest(
            f"The values are up to {sizes.returned // 4} numbers, and as JSON at most "
            f"{MAX_JSON_BYTES // _JSON_NUMBER} are sent; ask for safetensors, or return less.",
            param="format",
            code="plan_too_large",
        )
    if plan.format == "safetensors" and sizes.returned > MAX_ANSWER_BYTES:
        raise InvalidRequest(
            f"The values are up to {sizes.returned} bytes, and in one answer at most {MAX_ANSWER_BYTES} are "
            "sent; ask for parts, or return less.",
            param="format",
            code="plan_too_large",
        )
    return Task(backend, resolved, sizes, keeps=plan.format == "parts")


async def trace(house: House, caller: Caller, plan: Plan, raw: dict[str, Any]) -> Trace:
    """Carry a plan out.

    Raises:
        InvalidRequest, NotFound: see `prepare`.
        AccessDenied, QuotaExceeded, QuotaUnavailable: see `metering.reserve`.
        InvalidRequest, EngineBusy, QuotaExceeded: see `Spool.room`.
        PolicyRefused: it would tell too much of a weight matrix; nothing is charged.
        EngineBusy, EngineUnavailable: it was not taken, or could not be finished; the same may pass later.
        PlanFailed: its values do not fit each other; the record says so.
        StorageError: there is no record, and so no answer.
    """
    received = house.now()
    known = await artifacts.known(house, caller, plan)
    task = await asyncio.to_thread(prepare, house, plan, known)
    record_id = new_record_id()
    with task.room(house, caller):
        meter = await reserve(house, caller, task, record_id)
        telling: Telling | None = None
        try:
            telling = await count_told(house, caller, task.backend, lambda: task.told)
            admission = task.backend.admit(caller.project_id, task.sequences_at_once)
        except BaseException:
            await meter.release()
            await take_back(house, telling)
            raise
        errand = _Errand(house, caller, task, meter, record_id, received, raw, plan.seed, telling)
        with house.occupied(), admission:
            return await errand.run()


async def carry_out(house: House, project_id: str, task: Task, name: str) -> Traced:
    """Have the engine carry a task out, with the artifacts that it takes.

    Raises:
        EngineUnavailable: it could not be finished.
        InvalidRequest: an artifact was deleted a moment ago.
        PlanFailed: its values do not fit each other.
        StorageError: an artifact cannot be read.
    """
    file = house.spool.brought_file_of(name)
    try:
        brought = await artifacts.bring(house, project_id, task.resolved.artifacts, file)
        return await task.backend.trace(task.program(name, project_id, house.spool.file_of(name), brought))
    finally:
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Errand:
    """One plan on its way to its record."""

    house: House
    caller: Caller
    task: Task
    meter: Meter
    record_id: str
    received: datetime
    raw: dict[str, Any]
    seed: int
    telling: Telling | None

    async def run(self) -> Trace:
        """Carry it out, and make its record, however it ends."""
        spool = self.house.spool
        traced: Traced | None = None
        try:
            traced = await carry_out(self.house, self.caller.project_id, self.task, self.record_id)
            await self._keep("complete", None, traced)
        except BaseException as error:
            spool.remove(self.record_id)
            if traced is None:
                status, failure = ending_of(error)
                await self._keep(status, failure, None)
                await take_back(self.house, self.telling)
            raise
        file = spool.file_of(self.record_id)
        kept = self._kept(traced, file) if self.task.keeps else None
        return Trace(self.record_id, self.task.backend, self.meter, self.task, traced, file, kept)

    def _kept(self, traced: Traced, file: Path) -> Kept:
        spool = self.house.spool
        kept = Kept(
            self.record_id,
            self.caller.project_id,
            tuple(self.task.scopes),
            file,
            traced.parts,
            spool.expiry(),
        )
        spool.keep(kept)
        return kept

    async def _keep(self, status: RecordStatus, failure: Failure | None, traced: Traced | None) -> None:
        used = self.task.used(traced, self.meter.seconds)
        with self.meter.settlement(used) as settlement:
            await self.house.records.append(self._answer(status, failure, traced), settlement)

    def _answer(self, status: RecordStatus, failure: Failure | None, traced: Traced | None) -> Answer:
        served = self.task.backend.served
        return Answer(
            record_id=self.record_id,
            project_id=self.caller.project_id,
            key_id=self.caller.key_id,
            model=served.name,
            deployment=served.deployment.digest,
            endpoint=ENDPOINT,
            received=self.received,
            answered=self.house.now(),
            status=status,
            request=self.raw,
            messages=None,
            prompts=[run.token_ids for run in self.task.resolved.runs],
            sampling=SamplingParams(seed=self.seed, max_tokens=0, temperature=0),
            seed_source="explicit",
            n=1,
            sequences=[] if traced is None else self.task.sequences(traced),
            error=failure,
            tensors=None if traced is None else traced.tensors,
        )
