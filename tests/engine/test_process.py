"""The loop of the engine's process, over an engine that is made up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from transom.engine import process
from transom.engine.messages import Abort, Output, Outputs, Stats, Submit, decode_outbound
from transom.schema.generation import SamplingParams, SequenceRequest


class End(Exception):
    """Ends the loop, which has no end."""


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Pipe:
    def __init__(self):
        self.said = []

    def send_bytes(self, frame):
        self.said.append(decode_outbound(frame))


class Inbox:
    """Messages, some of which arrive only once the engine sleeps; then the end of the test."""

    def __init__(self, *messages):
        self._messages = list(messages)

    def empty(self):
        return not self._messages or self._messages[0] is None

    def get(self):
        while self._messages and self._messages[0] is None:
            self._messages.pop(0)
        if not self._messages:
            raise End
        return self._messages.pop(0)


SLEEP = None


class Engine:
    """Each sequence takes as many steps as it is to generate tokens."""

    def __init__(self, clock, seconds=0.1):
        self._clock, self._seconds = clock, seconds
        self.left = {}
        self.steps = 0
        self.breaks = False
        self.is_busy_elsewhere = False

    @property
    def idle(self):
        return not self.left

    def submit(self, request, generated):
        self.left[request.sequence_id] = request.sampling.max_tokens - len(generated)

    def abort(self, sequence_id):
        self.left.pop(sequence_id, None)

    def stats(self):
        return Stats(running=len(self.left), steps=self.steps)

    def step(self):
        if self.breaks:
            raise MemoryError
        self.steps += 1
        self._clock.now += self._seconds
        outputs = [Output(name) for name in self.left]
        self.left = {name: count - 1 for name, count in self.left.items() if count > 1}
        return outputs, []


def submit(name, tokens, generated=()):
    sampling = SamplingParams(seed=1, max_tokens=tokens)
    return Submit(SequenceRequest(sequence_id=name, prompt_token_ids=(1,), sampling=sampling), generated)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(process, "time", made)
    return made


def run(engine, *messages):
    pipe = Pipe()
    with pytest.raises(End):
        process.serve(engine, Inbox(*messages), pipe)
    return pipe.said


def beats(said):
    return [message for message in said if isinstance(message, Stats)]


def test_an_engine_tells_of_itself_when_it_begins_to_sleep_and_only_then(clock):
    assert run(Engine(clock), SLEEP) == [Stats()]
    said = run(Engine(clock), SLEEP, submit("a", 1), SLEEP, submit("b", 1))
    assert beats(said) == [Stats(), Stats(steps=1), Stats(steps=2)]
    assert len([message for message in said if isinstance(message, Outputs)]) == 2


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.25, 3.0])
def test_it_beats_while_it_steps_and_not_more_often_than_it_should(clock, seconds):
    engine, times = Engine(clock, seconds), []
    pipe = Pipe()
    send = pipe.send_bytes

    def note(frame):
        send(frame)
        if isinstance(pipe.said[-1], Stats) and engine.left:
            times.append(clock.now)

    pipe.send_bytes = note
    with pytest.raises(End):
        process.serve(engine, Inbox(submit("a", 100)), pipe)
    gaps = [late - early for early, late in pairwise(times)]
    assert min(gaps) >= process.BEAT_SECONDS - 1e-9
    assert max(gaps) <= process.BEAT_SECONDS + seconds + 1e-9
    assert beats(pipe.said)[-1] == Stats(steps=100)


def test_an_engine_that_has_nothing_left_after_an_abort_says_so(clock):
    engine = Engine(clock)
    said = run(engine, SLEEP, submit("a", 500), submit("b", 500), Abort("a"), Abort("b"), SLEEP)
    assert said == [Stats(), Stats()]
    assert engine.steps == 0


def test_what_a_sequence_generated_before_is_handed_on(clock):
    engine = Engine(clock)
    run(engine, submit("a", 10, generated=(5,) * 7))
    assert engine.steps == 3


def test_outputs_come_before_the_beat_of_their_step(clock):
    said = run(Engine(clock, 1.0), submit("a", 2))
    assert [type(message) for message in said] == [Outputs, Stats, Outputs, Stats]


def test_a_step_that_breaks_ends_the_process(clock):
    engine, pipe = Engine(clock), Pipe()
    engine.breaks = True
    with pytest.raises(MemoryError):
        process.serve(engine, Inbox(submit("a", 3)), pipe)
    assert not [message for message in pipe.said if isinstance(message, Outputs)]
