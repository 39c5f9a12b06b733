"""A client that reads nothing costs what its own answer takes, and nobody else a moment."""

from __future__ import annotations

import json
import socket
import time
import tracemalloc

import httpx2
import pytest

from tests.http.door import MODEL
from tests.http.live import COMPLETIONS, Live, until

LARGE = {"max_tokens": 60, "n": 30, "stream": True, "seed": 3, "ignore_eos": True, "logprobs": 20}
"""Two megabytes of events: more than the sockets of both sides hold."""


@pytest.fixture
def live(tokenizer, tmp_path):
    with Live(tmp_path, tokenizer) as running:
        # What the kernel would hold is not held by the server; connections inherit it.
        running._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        yield running


def ask(live) -> float:
    """Seconds that a small answer takes."""
    began = time.monotonic()
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 5}
    assert httpx2.post(f"{live.url}{COMPLETIONS}", json=body, timeout=60).status_code == 200
    return time.monotonic() - began


def unread(live) -> socket.socket:
    """A stream that nobody reads, once the engine has nothing more to do for it."""
    connection = live.request(COMPLETIONS, **LARGE)
    until(lambda: live.backend.taken)
    until(lambda: not live.backend.room._inside, seconds=60)
    return connection


def test_the_engine_finishes_for_a_client_that_does_not_read_and_gives_its_room_away(live):
    with unread(live):
        assert live.backend.aborted == []
        record_id = live.backend.taken[0].sequence_id.partition("/")[0]
        # Nobody was told the end, so there is no end on record yet.
        assert live.record(record_id) is None
    assert until(lambda: live.record(record_id))["status"] == "aborted"


def test_others_are_answered_as_if_it_were_not_there(live):
    alone = min(ask(live) for _ in range(5))
    live.backend.taken.clear()
    with unread(live):
        crowded = min(ask(live) for _ in range(5))
    assert crowded < 3 * alone + 0.1


def test_whoever_reads_late_still_reads_everything(live):
    with unread(live) as connection:
        content = read_to_the_end(connection)
    whole = httpx2.post(f"{live.url}{COMPLETIONS}", json=asked(stream=False), timeout=60).json()
    for choice in (0, 17, 29):
        wanted = b'"index":%d,' % choice
        assert content.count(wanted) >= len(whole["choices"][choice]["logprobs"]["tokens"])


def read_to_the_end(connection) -> bytes:
    pieces = [b""]
    while b"data: [DONE]" not in pieces[-1][-100:]:
        pieces.append(connection.recv(1 << 20))
        assert pieces[-1], "the connection ended"
    return b"".join(pieces)


def asked(**more):
    return {"model": MODEL, "prompt": "The light"} | LARGE | more


def test_what_waits_for_a_reader_is_bounded_by_the_answer(live):
    ask(live)
    live.backend.taken.clear()
    tracemalloc.start()
    try:
        with unread(live):
            held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    answer = httpx2.post(f"{live.url}{COMPLETIONS}", json=asked(), timeout=120).content
    assert held < 4 * len(answer)
    assert json.loads(answer.split(b"\n\n")[0].removeprefix(b"data: "))["id"]
