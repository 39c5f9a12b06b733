"""A process at the other end of the pipe, in every bad state: stopped, deaf, babbling, gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from transom.backends import engine_process
from transom.backends.engine_process import EngineProcess
from transom.engine.messages import Abort, EngineOptions, Outputs, Stats, Submit
from transom.schema.generation import SamplingParams, SequenceRequest

pytestmark = pytest.mark.anyio

PROGRAM = """
import os, sys, time
from multiprocessing.connection import Connection
from transom.engine.messages import Outputs, Output, Stats, decode_inbound, encode
pipe = Connection(int(sys.argv[1]))
"""
ECHO = """
pipe.send_bytes(encode(Stats(steps=1)))
while True:
    message = decode_inbound(pipe.recv_bytes())
    pipe.send_bytes(encode(Outputs([Output(message.sequence_id)])))
    if message.sequence_id == "end":
        sys.exit(7)
"""
DEAF = """
pipe.send_bytes(encode(Stats()))
time.sleep(60)
"""
BABBLING = """
pipe.send_bytes(b"no message of ours")
time.sleep(60)
"""
LEAVING = """
pipe.close()
time.sleep(60)
"""


class Told:
    """What a process said, and how it ended."""

    def __init__(self) -> None:
        self.messages: list = []
        self.heard = asyncio.Event()
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def hear(self, message):
        assert not self.exit.done()
        self.messages.append(message)
        self.heard.set()


@pytest.fixture
async def told():
    return Told()


@pytest.fixture
def start(monkeypatch, told):
    monkeypatch.setattr(engine_process, "_PATIENCE", 0.3)
    made = []

    def run(program):
        monkeypatch.setattr(
            engine_process, "_command", lambda fd, _: [sys.executable, "-c", PROGRAM + program, str(fd)]
        )
        made.append(EngineProcess(EngineOptions(root="nowhere"), told.hear, told.exit.set_result))
        return made[-1]

    yield run
    for process in made:
        process.kill()


def large(number):
    """A message that no pipe's buffer has room for."""
    request = SequenceRequest(
        sequence_id=str(number),
        prompt_token_ids=tuple(range(100_000)),
        sampling=SamplingParams(seed=1, max_tokens=1),
    )
    return Submit(request)


async def test_messages_arrive_in_order_and_then_the_exit(start, told):
    process = start(ECHO)
    for name in ("a", "b", "end"):
        process.send(Abort(name))
    assert await asyncio.wait_for(told.exit, 20) == 7
    first, *rest = told.messages
    assert first == Stats(steps=1)
    assert all(isinstance(each, Outputs) for each in rest)
    assert [each.outputs[0].sequence_id for each in rest] == ["a", "b", "end"]


async def test_sending_to_a_stopped_process_does_not_wait(start, told):
    process = start(DEAF)
    await asyncio.wait_for(told.heard.wait(), 20)
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    for number in range(20):
        process.send(large(number))
    assert time.monotonic() - began < 1
    process.kill()
    assert await asyncio.wait_for(told.exit, 20) == -signal.SIGKILL


async def test_what_is_sent_to_a_dead_process_is_lost_without_a_word(start, told):
    process = start(ECHO)
    process.kill()
    await asyncio.wait_for(told.exit, 20)
    for number in range(3):
        process.send(large(number))
    process.kill()
    await process.stop()


async def test_one_that_does_not_hear_is_ended_all_the_same(start, told):
    process = start(DEAF)
    await asyncio.wait_for(told.heard.wait(), 20)
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.wait_for(process.stop(), 20)
    # Both signals wait for it when it dies, and Linux names one of them.
    assert await asyncio.wait_for(told.exit, 20) in {-signal.SIGKILL, -signal.SIGTERM}


@pytest.mark.parametrize("program", [BABBLING, LEAVING])
async def test_one_that_is_no_engine_any_more_is_ended(start, told, program):
    start(program)
    assert await asyncio.wait_for(told.exit, 20) == -signal.SIGKILL
    assert told.messages == []


async def test_a_stopped_process_says_nothing_after_its_exit(start, told):
    process = start(ECHO)
    await asyncio.wait_for(told.heard.wait(), 20)
    await process.stop()
    assert await asyncio.wait_for(told.exit, 20) == -signal.SIGTERM
