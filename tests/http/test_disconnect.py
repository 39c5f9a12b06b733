"""Clients that leave, seen by a real server: the sequence is aborted, and what was made is on record."""

from __future__ import annotations

import re
import socket
import sqlite3
import time
from contextlib import closing

import httpx2
import pytest

from tests.fakes import Knobs
from tests.http.door import MODEL
from tests.http.live import CHAT, COMPLETIONS, Live, read_until, until

PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["completions", "chat"])


@pytest.fixture(scope="module")
def running(tokenizer, tmp_path_factory):
    with Live(tmp_path_factory.mktemp("home"), tokenizer) as live:
        yield live


@pytest.fixture
def live(running):
    running.backend.knobs = Knobs()
    running.backend.taken.clear()
    running.backend.aborted.clear()
    running.backend.hanging.clear()
    return running


@PATHS
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("tokens", [0, 5])
def test_leaving_before_a_whole_answer_aborts_it_and_leaves_a_record(live, path, n, tokens):
    live.backend.knobs.hang_after = tokens
    with live.request(path, max_tokens=50, n=n, ignore_eos=True):
        until(live.backend.hanging.is_set)
        until(lambda: len(live.backend.taken) == n)
    until(lambda: len(live.backend.aborted) == n)
    record = live.only_record()
    assert record["status"] == "aborted"
    outputs = record["statement"]["predicate"]["output"]
    assert [output["finish_reason"] for output in outputs] == [None] * n
    assert outputs[0]["tokens"] == tokens


@PATHS
@pytest.mark.parametrize("tokens", [0, 5])
def test_leaving_a_stream_that_waits_aborts_it_and_leaves_a_record(live, path, tokens):
    live.backend.knobs.hang_after = tokens
    with live.request(path, max_tokens=50, stream=True, ignore_eos=True) as connection:
        until(live.backend.hanging.is_set)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: live.backend.aborted)
    record = live.only_record()
    assert record["status"] == "aborted"
    assert record["statement"]["predicate"]["output"][0]["tokens"] == tokens


@PATHS
def test_leaving_a_stream_that_talks_aborts_it_and_leaves_a_record(live, path):
    live.backend.knobs.pause = 0.01
    with live.request(path, max_tokens=200, n=3, stream=True, ignore_eos=True) as connection:
        read_until(connection, b"data: ")
    until(lambda: len(live.backend.aborted) == 3)
    assert live.only_record()["status"] == "aborted"


@PATHS
def test_whoever_was_told_a_records_name_finds_the_record(live, path):
    live.backend.knobs.pause = 0.01
    with live.request(path, max_tokens=200, stream=True, ignore_eos=True) as connection:
        head = read_until(connection, b"\r\n\r\n").decode()
    record_id = re.search(r"x-transom-record: (\S+)", head)[1]
    assert until(lambda: live.record(record_id))["status"] == "aborted"


def test_what_an_aborted_record_holds_is_replayed_exactly(live):
    live.backend.knobs.hang_after = 6
    with live.request(COMPLETIONS, max_tokens=50, n=2, ignore_eos=True, logprobs=2):
        until(live.backend.hanging.is_set)
        time.sleep(0.1)
    record = live.only_record()
    live.backend.knobs.hang_after = None
    report = httpx2.post(f"{live.url}/v1/records/{record['id']}/replay").json()
    assert (report["level"], report["tokens"]) == ("EXACT", 12)


def test_leaving_a_replay_aborts_it_too(live):
    done = httpx2.post(f"{live.url}{COMPLETIONS}", json={"model": MODEL, "prompt": "hi", "ignore_eos": True})
    live.backend.knobs.hang_after = 3
    with socket.create_connection(live.address) as connection:
        path = f"/v1/records/{done.json()['id']}/replay"
        connection.sendall(f"POST {path} HTTP/1.1\r\nhost: door\r\ncontent-length: 0\r\n\r\n".encode())
        until(live.backend.hanging.is_set)
    until(lambda: live.backend.aborted)


def test_a_server_that_ends_keeps_the_records_of_what_it_breaks_off(tokenizer, tmp_path):
    with Live(tmp_path, tokenizer) as live:
        live.backend.knobs.hang_after = 4
        whole = live.request(COMPLETIONS, max_tokens=50, ignore_eos=True)
        until(live.backend.hanging.is_set)
        live.backend.hanging.clear()
        streamed = live.request(COMPLETIONS, max_tokens=50, ignore_eos=True, stream=True)
        until(live.backend.hanging.is_set)
    with whole, streamed, closing(sqlite3.connect(tmp_path / "transom.db")) as database:
        assert database.execute("select status from records").fetchall() == [("aborted",), ("aborted",)]
