"""Our own engine, in a process of its own, behind the `Backend` interface.

When the engine dies, it is started again and every sequence goes on at its next token: answers are
deterministic, so the client sees a pause and not an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from transom.backends.engine_process import EngineProcess
from transom.backends.manifest import verify
from transom.backends.text import StopText
from transom.backends.tokenizer import LocalTokenizer
from transom.engine.messages import Abort, EngineOptions, Outbound, Output, Outputs, Ready, Refused, Submit
from transom.errors import EngineUnavailable, ModelRefused
from transom.schema.deployment import Deployment, EngineProfile, ModelManifest, Policy, ServedModel
from transom.schema.generation import MAX_TOP_LOGPROBS, Delta, FinishReason, SequenceRequest

_RESTART_PAUSES = (0.0, 1.0, 5.0, 0.0)
"""Seconds after each failed attempt to start the engine again; after the last it stays down."""

_MAX_RESTARTS = 2
"""Deaths of the engine that one sequence lives through; it may be what kills it."""


class _Sequence:
    """A sequence in flight, seen from the server: what was said of it so far."""

    def __init__(self, request: SequenceRequest, tokenizer: LocalTokenizer) -> None:
        self.request = request
        self.outputs: asyncio.Queue[Output] = asyncio.Queue()
        self.generated: list[int] = []
        self.restarts = 0
        self._tokenizer = tokenizer
        decoder = tokenizer.stream(request.prompt_token_ids)
        self._text = StopText(decoder, request.sampling.stop)

    def receive(self, output: Output) -> None:
        self.generated.extend(token.token_id for token in output.tokens)
        self.outputs.put_nowait(output)

    def absorb(self, output: Output) -> Delta:
        """The output as text; a stop string makes it the last."""
        text = ""
        for token in output.tokens:
            text += self._text.push(token.token_id)
        reason: FinishReason | None = output.finish_reason
        stop: str | int | None = output.stop_token
        if reason is not None:
            text += self._text.finish()
        if self._text.stopped_by is not None:
            reason, stop = "stop", self._text.stopped_by
        return Delta(
            tokens=tuple(output.tokens),
            token_texts=tuple(self._tokenizer.token_text(token.token_id) for token in output.tokens),
            text=text,
            prompt_logprobs=None if output.prompt_logprobs is None else tuple(output.prompt_logprobs),
            finish_reason=reason,
            stop_reason=stop,
            error=output.error,
        )


@dataclass
class _Start:
    """One attempt to bring an engine up."""

    process: EngineProcess | None = None
    outcome: asyncio.Future[Ready] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LocalBackend:
    """A model root served by our engine."""

    def __init__(self, name: str, options: EngineOptions) -> None:
        root = Path(options.root)
        self._name = name
        self._created = int(root.stat().st_mtime)
        self._tokenizer = LocalTokenizer(root)
        self._options = replace(options, eos_token_ids=tuple(sorted(self._tokenizer.eos_token_ids)))
        self._open: dict[str, _Sequence] = {}
        self._current: _Start | None = None
        self._served: ServedModel | None = None
        self._stopping = False
        self._broken: str | None = None
        self._restarting: asyncio.Task[None] | None = None
        self.restarts = 0

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
    def ready(self) -> bool:
        """Whether the engine is up."""
        start = self._current
        return start is not None and start.outcome.done() and start.outcome.exception() is None

    async def start(self) -> None:
        """Check the model root against its manifest, start the engine, and wait for its proof.

        Raises:
            ModelRefused: the model root was changed, the model cannot be served exactly, or the engine died
                while loading it.
        """
        model = await asyncio.to_thread(verify, Path(self._options.root))
        start = self._current = _Start()
        start.process = EngineProcess(
            self._options,
            on_message=lambda message: self._hear(start, message),
            on_exit=lambda code: self._on_exit(start, code),
        )
        ready = await start.outcome
        self._adopt(model, ready)
        self._broken = None
        for sequence in self._open.values():
            if sequence.restarts <= _MAX_RESTARTS:
                self._submit(sequence)

    async def stop(self) -> None:
        """End the engine and every sequence in flight."""
        self._stopping = True
        if self._restarting is not None:
            self._restarting.cancel()
        if self._current is not None and self._current.process is not None:
            await self._current.process.stop()
        self._fail_open("the server is shutting down")

    async def generate(self, request: SequenceRequest) -> AsyncGenerator[Delta, None]:
        """Continue one prompt; leaving the iterator early aborts it."""
        if self._stopping or self._served is None or self._broken:
            raise EngineUnavailable(f"{self._name} is not being served now")
        sequence = _Sequence(request, self._tokenizer)
        self._open[request.sequence_id] = sequence
        if self.ready:
            self._submit(sequence)
        finished = False
        try:
            while not finished:
                output = await sequence.outputs.get()
                delta = sequence.absorb(output)
                # The engine knows nothing of stop strings: it is told that nobody waits any more.
                finished = output.finish_reason is not None
                if delta.finish_reason is not None:
                    yield delta
                    return
                yield delta
        finally:
            del self._open[request.sequence_id]
            if not finished:
                self._send(Abort(request.sequence_id))

    def _submit(self, sequence: _Sequence) -> None:
        self._send(Submit(sequence.request, tuple(sequence.generated)))

    def _send(self, message: Submit | Abort) -> None:
        if self._current is not None and self._current.process is not None:
            self._current.process.send(message)

    def _hear(self, start: _Start, message: Outbound) -> None:
        match message:
            case Ready():
                start.outcome.set_result(message)
            case Refused(reason):
                start.outcome.set_exception(ModelRefused(f"{self._name} cannot be served: {reason}"))
            case Outputs(outputs):
                for output in outputs:
                    if output.sequence_id in self._open:
                        self._open[output.sequence_id].receive(output)

    def _on_exit(self, start: _Start, code: int) -> None:
        if not start.outcome.done():
            start.outcome.set_exception(
                ModelRefused(f"{self._name}: the engine ended with status {code} while loading")
            )
        elif self._served is not None and start is self._current and not self._stopping:
            self._restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        self.restarts += 1
        for sequence in list(self._open.values()):
            sequence.restarts += 1
            if sequence.restarts > _MAX_RESTARTS:
                sequence.receive(
                    _failure(sequence, "the engine died repeatedly while this sequence was running")
                )
        for pause in _RESTART_PAUSES:
            try:
                await self.start()
            except ModelRefused as refusal:
                self._broken = refusal.message
                await asyncio.sleep(pause)
            else:
                return
        self._fail_open(f"the engine did not come back: {self._broken}")

    def _fail_open(self, error: str) -> None:
        for sequence in self._open.values():
            sequence.receive(_failure(sequence, error))

    def _adopt(self, model: ModelManifest, ready: Ready) -> None:
        deployment = Deployment(
            model=model,
            profile=EngineProfile(**ready.profile),
            policy=Policy(max_model_len=ready.max_model_len, max_top_logprobs=MAX_TOP_LOGPROBS),
        )
        if self._served is not None and self._served.deployment.digest != deployment.digest:
            raise ModelRefused(f"{self._name} came back as another deployment")
        self._served = ServedModel(name=self._name, deployment=deployment, created=self._created)


def _failure(sequence: _Sequence, error: str) -> Output:
    return Output(sequence.request.sequence_id, finish_reason="error", error=error)
