"""Silence counts only while there is work, and only silence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from transom.backends.watchdog import Watchdog

SECONDS = 8.0


@dataclass
class Timer:
    due: float
    call: object
    cancelled: bool = False

    def cancel(self):
        self.cancelled = True


@dataclass
class Loop:
    """An event loop's timers, without the wait; as in a real one, what was due long ago is called once."""

    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def call_later(self, delay, call):
        self.timers.append(Timer(self.now + delay, call))
        return self.timers[-1]

    def pass_time(self, seconds, step=0.25):
        for _ in range(int(seconds / step)):
            self.turn(step)

    def turn(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.due <= self.now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.call()


@pytest.fixture
def loop(monkeypatch):
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


@pytest.fixture
def dog(loop):
    barks = []
    made = Watchdog(SECONDS, lambda: barks.append(loop.now))
    made.barks = barks
    return made


def test_silence_is_noticed_after_the_time_and_not_before(loop, dog):
    loop.pass_time(3)
    dog.watch()
    loop.pass_time(100)
    assert dog.barks == [3 + SECONDS]


def test_nothing_is_noticed_where_nobody_waits(loop, dog):
    loop.pass_time(100)
    dog.watch()
    loop.pass_time(SECONDS - 1)
    dog.rest()
    loop.pass_time(100)
    assert dog.barks == []
    assert all(timer.cancelled for timer in loop.timers)


def test_a_word_now_and_then_is_enough(loop, dog):
    dog.watch()
    for _ in range(20):
        loop.pass_time(SECONDS - 1)
        dog.heard()
    assert dog.barks == []
    loop.pass_time(SECONDS)
    assert len(dog.barks) == 1


def test_to_ask_again_to_watch_is_not_to_have_heard(loop, dog):
    for _ in range(20):
        dog.watch()
        loop.pass_time(SECONDS / 4)
        if dog.barks:
            break
    assert dog.barks == [SECONDS]


def test_silence_from_before_the_rest_does_not_count(loop, dog):
    dog.watch()
    loop.pass_time(SECONDS - 1)
    dog.rest()
    dog.watch()
    loop.pass_time(SECONDS - 1)
    assert dog.barks == []


def test_it_can_watch_again(loop, dog):
    for _ in range(2):
        dog.watch()
        loop.pass_time(SECONDS)
    assert len(dog.barks) == 2


def test_a_server_that_was_itself_stopped_does_not_take_its_own_absence_for_silence(loop, dog):
    dog.watch()
    loop.turn(3600.0)
    assert dog.barks == []
    dog.heard()
    loop.pass_time(SECONDS - 1)
    assert dog.barks == []
