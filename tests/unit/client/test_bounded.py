"""Replies that would never end, or be too long, are given up."""

from __future__ import annotations

import httpx2
import pytest

from transom import Client
from transom.client import ServerUnreachable, UnexpectedReply, bounded


class Trickle(httpx2.SyncByteStream):
    """A body of many bytes, each a second after the one before."""

    def __init__(self, clock):
        self.clock = clock

    def __iter__(self):
        for _ in range(10_000):
            self.clock.now += 1
            yield b" "


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


def client(reply):
    return Client("http://log.example", "", transport=httpx2.MockTransport(reply), most_seconds=120)


def test_a_reply_that_trickles_is_given_up(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bounded.time, "monotonic", clock.monotonic)
    with (
        client(lambda _: httpx2.Response(200, stream=Trickle(clock))) as asked,
        pytest.raises(ServerUnreachable, match="within 120 seconds"),
    ):
        asked.models()
    assert clock.now < 130


def test_a_reply_that_is_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(bounded, "MOST_BYTES", 1000)
    with (
        client(lambda _: httpx2.Response(200, stream=httpx2.ByteStream(b" " * 1001))) as asked,
        pytest.raises(UnexpectedReply, match="longer than"),
    ):
        asked.models()


def test_a_packed_reply_is_refused_and_a_plain_one_is_asked_for():
    asked_for = []

    def reply(request):
        asked_for.append(request.headers["accept-encoding"])
        return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"x"))

    with client(reply) as asked, pytest.raises(UnexpectedReply, match="packed"):
        asked.models()
    assert asked_for == ["identity"]


def test_what_is_in_bounds_arrives():
    with client(lambda _: httpx2.Response(200, json={"object": "list", "data": []})) as asked:
        assert asked.models() == ()
