"""An engine that is made up, in the place of a process: it dies, hangs and lies on request."""

from __future__ import annotations

import asyncio

from tests.fakes import DIMENSIONS, make_deployment
from transom.engine.messages import Abort, Output, Outputs, Ready, Stats, Submit
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob

POISON = 300
"""A prompt that holds this token kills the engine as soon as it runs."""


class World:
    """The engines of one test, and what happens to them."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []
        self.together: list[set[str]] = []
        """Who was with each engine when it died."""
        self.silent = False
        self.heartbeat = False
        self.on_start = lambda engine: engine.say(
            Ready(make_deployment().profile.model_dump(), 256, DIMENSIONS)
        )

    def start(self, options, on_message, on_exit):
        self.engines.append(Engine(self, on_message, on_exit))
        return self.engines[-1]

    @property
    def engine(self):
        return self.engines[-1]


class Engine:
    """Implements `EngineLink`: every sequence gets a token each millisecond, made of those before it."""

    def __init__(self, world, on_message, on_exit):
        self._world = world
        self._on_message, self._on_exit = on_message, on_exit
        self.here: dict[str, Submit] = {}
        self.done: dict[str, list[int]] = {}
        self.sent: list[str] = []
        self.heard: list[str] = []
        """Submissions and aborts in their order: `+a`, `-a`."""
        self.ended: int | None = None
        self._task = asyncio.create_task(self._run())
        asyncio.get_running_loop().call_soon(world.on_start, self)

    def say(self, message):
        if self.ended is None:
            self._on_message(message)

    def send(self, message):
        match message:
            case Submit(request, generated):
                self.sent.append(request.sequence_id)
                self.heard.append(f"+{request.sequence_id}")
                self.here[request.sequence_id] = message
                self.done[request.sequence_id] = list(generated)
            case Abort(sequence_id):
                self.heard.append(f"-{sequence_id}")
                self.here.pop(sequence_id, None)

    def die(self, status=-9):
        if self.ended is None:
            self.ended = status
            self._task.cancel()
            self._world.together.append(set(self.here))
            self._on_exit(status)

    kill = die

    async def stop(self):
        self.die(0)

    async def _run(self):
        while True:
            await asyncio.sleep(0.001)
            if self._world.heartbeat:
                self.say(Stats())
            if not self._world.silent:
                self._step()

    def _step(self):
        outputs = []
        for sequence_id, submit in list(self.here.items()):
            if POISON in submit.request.prompt_token_ids and self.done[sequence_id]:
                self.die()
                return
            outputs.append(self._next(sequence_id, submit.request))
        if outputs:
            self.say(Outputs(outputs))

    def _next(self, sequence_id, request):
        done = self.done[sequence_id]
        token = next_token(request.prompt_token_ids, done)
        done.append(token)
        last = len(done) == request.sampling.max_tokens
        if last:
            del self.here[sequence_id]
        reason = "length" if last else None
        return Output(sequence_id, [TokenLogprob(token, -0.5, 1)], finish_reason=reason)


def next_token(prompt, done):
    return 40 + (sum(prompt) + 7 * sum(done) + len(done)) % 50


def expected(request):
    done = []
    while len(done) < request.sampling.max_tokens:
        done.append(next_token(request.prompt_token_ids, done))
    return done


def ask(name, *, tokens=12, poison=False):
    prompt = (*name.encode(), POISON) if poison else tuple(name.encode())
    sampling = SamplingParams(seed=1, max_tokens=tokens)
    return SequenceRequest(sequence_id=name, prompt_token_ids=prompt, sampling=sampling)
