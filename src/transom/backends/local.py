"""Our own engine, in a process of its own, behind the `Backend` interface.

When the engine dies or hangs, it is started again and every sequence goes on at its next token: answers are
deterministic, so the client sees a pause and not an error. A sequence that kills the engine is found out and
failed alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from msgspec.structs import replace

from transom.backends.activity import Activity
from transom.backends.admission import Admission, WaitingRoom
from transom.backends.base import Announce
from transom.backends.engine_process import EngineLink, EngineProcess, StartEngine
from transom.backends.errand import Errand
from transom.backends.flight import Flight
from transom.backends.manifest import verify
from transom.backends.meter import Meter
from transom.backends.roster import Roster
from transom.backends.tokenizer import LocalTokenizer
from transom.backends.watchdog import Watchdog
from transom.engine.messages import (
    Abort,
    Ended,
    EngineOptions,
    Outbound,
    Output,
    Outputs,
    Ready,
    Refused,
    Stats,
    Submit,
    SubmitProgram,
)
from transom.errors import EngineUnavailable, GenerationFailed, ModelRefused
from transom.schema.deployment import Deployment, EngineProfile, ModelManifest, Policy, ServedModel
from transom.schema.dimensions import Dimensions
from transom.schema.generation import MAX_TOP_LOGPROBS, Delta, SequenceRequest
from transom.schema.program import ModelPoint, Program, Traced

log = structlog.get_logger()

_RESTART_PAUSES = (0.0, 1.0, 5.0, 0.0)
"""Seconds after each failed attempt to start the engine again; after the last it stays down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a backend puts up with."""

    max_queue: int = 1024
    """Sequences that may wait beyond those that run."""
    hang_seconds: float = 120.0
    """Silence of an engine with work to do, after which it is killed."""
    load_seconds: float = 1800.0
    """How long an engine may load and prove itself."""


@dataclass
class _Launch:
    """One attempt to bring an engine up, and the engine that came of it."""

    link: EngineLink | None = None
    outcome: asyncio.Future[Ready] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    hung: bool = False
    exit_code: int | None = None

    @property
    def ending(self) -> str:
        """How the engine ended."""
        return "it hung" if self.hung else f"status {self.exit_code}"


class LocalBackend:
    """A model root served by our engine.

    Args:
        name: under which the model is served.
        options: of the engine; its end-of-sequence tokens are read from the tokenizer.
        limits: of what the backend puts up with.
        start_engine: makes an engine's process; tests put another in its place.
    """

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        limits: Limits | None = None,
        *,
        start_engine: StartEngine = EngineProcess,
    ) -> None:
        root = Path(options.root)
        limits = limits or Limits()
        self._name = name
        self._created = int(root.stat().st_mtime)
        self._tokenizer = LocalTokenizer(root)
        self._options = replace(options, eos_token_ids=tuple(sorted(self._tokenizer.eos_token_ids)))
        self._load_seconds = limits.load_seconds
        self._start_engine = start_engine
        self._room = WaitingRoom(name, running=options.max_num_seqs, waiting=limits.max_queue)
        self._roster: Roster[Flight | Errand] = Roster(self._submit)
        self._meter = Meter()
        self._watchdog = Watchdog(limits.hang_seconds, self._on_hang)
        self._launch: _Launch | None = None
        self._served: ServedModel | None = None
        self._points: Sequence[ModelPoint] = ()
        self._dimensions: Dimensions | None = None
        self._up = False
        self._stopping = False
        self._broken: str | None = None
        self._restarting: asyncio.Task[None] | None = None

    @property
    def served(self) -> ServedModel:
        """Name and deployment; known once the engine was up."""
        if self._served is None:
            raise EngineUnavailable(f"{self._name} is still loading")
        return self._served

    @property
    def tokenizer(self) -> LocalTokenizer:
        """The tokenizer of this deployment."""
        return self._tokenizer

    @property
    def hidden_size(self) -> int:
        """Width of the hidden rows."""
        return self._tokenizer.hidden_size

    @property
    def points(self) -> Sequence[ModelPoint]:
        """The points of this model, in the order in which a forward comes by."""
        return self._points

    @property
    def dimensions(self) -> Dimensions:
        """How large the model is; known once the engine was up."""
        if self._dimensions is None:
            raise EngineUnavailable(f"{self._name} is still loading")
        return self._dimensions

    @property
    def ready(self) -> bool:
        """Whether the engine is up."""
        return self._up

    @property
    def max_sequences(self) -> int:
        """Most sequences that one request can start."""
        return self._room.share

    @property
    def activity(self) -> Activity:
        """What it does now, and has done so far."""
        return self._meter.read(taken=len(self._roster), refusals=dict(self._room.refusals))

    async def start(self, announce: Announce | None = None) -> None:
        """Check the model root against its manifest, start the engine, and wait for its proof.

        Args:
            announce: awaited with the deployment before anything is answered.

        Raises:
            ModelRefused: the model root was changed, the model cannot be served exactly, or the engine died
                or hung while loading it.
        """
        model = await asyncio.to_thread(verify, Path(self._options.root))
        launch = self._launch = _Launch()
        launch.link = link = self._start_process(launch)
        try:
            ready = await self._loaded(launch, link)
            deployment = _deployment(model, ready)
            if announce is not None:
                await announce(deployment)
            self._adopt(deployment, ready)
        except Exception:
            await link.stop()
            raise
        self._broken = None
        self._up = True
        self._roster.engine_is_up()

    async def stop(self) -> None:
        """End the engine and every sequence in flight."""
        self._stopping = True
        self._up = False
        self._watchdog.rest()
        if self._restarting is not None:
            self._restarting.cancel()
        self._fail_all("The server is shutting down, and this answer was not finished in time; ask again.")
        if self._launch is not None and self._launch.link is not None:
            await self._launch.link.stop()

    def admit(self, project: str, sequences: int) -> Admission:
        """Room for the sequences of one request; see `Backend.admit`."""
        self._check()
        return self._room.admit(project, sequences)

    async def generate(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        """Continue one prompt; leaving the iterator early aborts it."""
        self._check()
        flight = Flight(request, self._tokenizer, self._meter.latencies)
        self._roster.add(flight)
        try:
            finished = False
            while not finished:
                delta = await flight.news()
                finished = delta.finish_reason is not None
                yield delta
        finally:
            # The engine knows nothing of stop strings: it is told that nobody waits any more, and told so
            # before it gets another sequence in this one's place.
            if self._roster.find(request.sequence_id) is flight:
                self._send(Abort(request.sequence_id))
            self._roster.remove(flight)
            self._watch()

    async def trace(self, program: Program) -> Traced:
        """Carry a program out; whoever is cancelled while waiting aborts it. See `Backend.trace`."""
        self._check()
        errand = Errand(program)
        self._roster.add(errand)
        try:
            return await errand.end()
        finally:
            if self._roster.find(program.trace_id) is errand:
                self._send(Abort(program.trace_id))
            self._roster.remove(errand)
            self._watch()

    def _check(self) -> None:
        if self._stopping or self._served is None or self._broken:
            raise EngineUnavailable(f"{self._name} is not being served now; ask again in a moment.")

    def _submit(self, flight: Flight | Errand) -> None:
        self._send(flight.submission())
        self._watchdog.watch()

    def _send(self, message: Submit | SubmitProgram | Abort) -> None:
        if self._launch is not None and self._launch.link is not None:
            self._launch.link.send(message)

    def _watch(self) -> None:
        if not self._roster.engine_has_work:
            self._watchdog.rest()

    def _start_process(self, launch: _Launch) -> EngineLink:
        try:
            return self._start_engine(
                self._options,
                lambda message: self._hear(launch, message),
                lambda code: self._on_exit(launch, code),
            )
        except OSError as error:
            raise ModelRefused(f"{self._name}: the engine's process could not be started: {error}") from error

    async def _loaded(self, launch: _Launch, link: EngineLink) -> Ready:
        try:
            async with asyncio.timeout(self._load_seconds):
                ready = await launch.outcome
        except TimeoutError:
            link.kill()
            raise ModelRefused(
                f"{self._name}: the engine was not ready after {self._load_seconds:g} s; where loading takes "
                "longer, set TRANSOM_ENGINE_LOAD_SECONDS"
            ) from None
        if launch.exit_code is not None:
            raise ModelRefused(f"{self._name}: the engine ended once it was loaded ({launch.ending})")
        return ready

    def _hear(self, launch: _Launch, message: Outbound) -> None:
        self._watchdog.heard()
        match message:
            case Ready() if not launch.outcome.done():
                launch.outcome.set_result(message)
            case Refused(reason) if not launch.outcome.done():
                launch.outcome.set_exception(ModelRefused(f"{self._name} cannot be served: {reason}"))
            case Outputs(outputs):
                for output in outputs:
                    self._take(output)
                self._watch()
            case Ended(traced):
                self._end(traced)
                self._watch()
            case Stats():
                self._meter.take(message)

    def _take(self, output: Output) -> None:
        flight = self._roster.find(output.sequence_id)
        if not isinstance(flight, Flight):
            return
        self._meter.generated_tokens += len(output.tokens)
        flight.receive(output)
        if output.finish_reason is not None:
            self._roster.remove(flight)

    def _end(self, traced: Traced) -> None:
        errand = self._roster.find(traced.trace_id)
        if isinstance(errand, Errand):
            self._roster.remove(errand)
            errand.receive(traced)

    def _on_hang(self) -> None:
        if self._launch is not None and self._launch.link is not None:
            log.error("engine hangs", model=self._name)
            self._launch.hung = True
            self._launch.link.kill()

    def _on_exit(self, launch: _Launch, code: int) -> None:
        launch.exit_code = code
        if not launch.outcome.done():
            launch.outcome.set_exception(
                ModelRefused(f"{self._name}: the engine ended while loading ({launch.ending})")
            )
        elif launch is self._launch and self._up:
            self._on_death(launch.ending)

    def _on_death(self, ending: str) -> None:
        log.error("engine died", model=self._name, how=ending, sequences=len(self._roster))
        self._up = False
        self._watchdog.rest()
        self._meter.engine_died()
        guilty = self._roster.engine_died()
        if guilty is not None:
            log.error("sequence kills the engine", model=self._name, sequence=guilty.sequence_id)
            guilty.fail(GenerationFailed(_conviction(guilty.deaths + 1, ending)))
        self._restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        for pause in _RESTART_PAUSES:
            try:
                await self.start()
            except Exception as refusal:  # noqa: BLE001  # whoever waits must not wait for ever
                self._broken = str(refusal)
                log.error("engine did not start again", model=self._name, reason=self._broken)
                await asyncio.sleep(pause)
            else:
                return
        self._fail_all(f"The engine did not come back: {self._broken}")

    def _fail_all(self, message: str) -> None:
        for flight in self._roster.clear():
            flight.fail(EngineUnavailable(message))

    def _adopt(self, deployment: Deployment, ready: Ready) -> None:
        if self._served is not None and self._served.deployment.digest != deployment.digest:
            raise ModelRefused(f"{self._name} came back as another deployment")
        self._points = ready.points
        self._dimensions = ready.dimensions
        self._served = ServedModel(name=self._name, deployment=deployment, created=self._created)


def _deployment(model: ModelManifest, ready: Ready) -> Deployment:
    return Deployment(
        model=model,
        profile=EngineProfile(**ready.profile),
        policy=Policy(max_model_len=ready.max_model_len, max_top_logprobs=MAX_TOP_LOGPROBS),
    )


def _conviction(deaths: int, ending: str) -> str:
    return (
        f"The engine died {deaths} times while it worked on this request, the last time on nothing else "
        f"({ending}). It is not tried again; ask for less at once, or tell the operator."
    )
