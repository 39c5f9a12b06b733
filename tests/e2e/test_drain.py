"""SIGTERM: what runs is finished, nobody new is let in, and the process ends well."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing

import httpx2
import pytest

from tests.e2e.asking import streaming, whole
from tests.e2e.server import Server, is_alive

pytestmark = pytest.mark.e2e


def statuses(server: Server) -> list[str]:
    with closing(sqlite3.connect(server.home / "transom.db")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [status for (status,) in database.execute("select status from records order by id")]


def until_not_ready(server: Server) -> httpx2.Response:
    deadline = time.monotonic() + 10
    while (reply := httpx2.get(f"{server.url}/ready", timeout=5)).status_code == 200:
        assert time.monotonic() < deadline
    return reply


def test_running_streams_are_finished_and_new_requests_turned_away(tiny_server):
    server = tiny_server(shutdown_seconds="60")
    answer = whole(server)
    engine, process = server.engine, server.process
    with httpx2.Client(base_url=server.url, timeout=10) as open_connection, streaming(server) as stream:
        assert open_connection.get("/health").status_code == 200
        stream.read(tokens=5)
        # The engine is held, so that what follows happens while the stream runs.
        os.kill(engine, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert until_not_ready(server).headers["connection"] == "close"
        refused = open_connection.post("/v1/completions", json={"model": "tiny", "prompt": "hi"})
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert "shutting down" in refused.json()["error"]["message"]
        assert process.poll() is None
        os.kill(engine, signal.SIGCONT)
        stream.read()
    assert stream.done
    assert stream.error is None
    assert stream.is_same_as(answer)
    assert process.wait(30) == 0
    assert not is_alive(engine)
    assert statuses(server) == ["complete", "complete"]


def test_what_does_not_finish_in_time_ends_with_an_error_and_a_record(tiny_server):
    server = tiny_server(shutdown_seconds="1")
    engine, process = server.engine, server.process
    with streaming(server) as stream:
        stream.read(tokens=5)
        os.kill(engine, signal.SIGSTOP)
        process.terminate()
        stream.read()
    assert stream.done
    assert stream.error is not None
    assert stream.error["code"] == "engine_unavailable"
    assert "shutting down" in stream.error["message"]
    assert process.wait(30) == 0
    assert not is_alive(engine)
    assert statuses(server) == ["failed"]


def test_a_whole_answer_that_does_not_finish_in_time_is_a_503_with_a_record(tiny_server):
    server = tiny_server(shutdown_seconds="1")
    with streaming(server) as stream:
        stream.read(tokens=1)
        os.kill(server.engine, signal.SIGSTOP)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            body = {"model": "tiny", "prompt": "hi", "max_tokens": 4}
            asking = pool.submit(httpx2.post, f"{server.url}/v1/completions", json=body, timeout=30)
            time.sleep(1)
            server.process.terminate()
            reply = asking.result()
    assert reply.status_code == 503
    assert "shutting down" in reply.json()["error"]["message"]
    assert reply.headers["x-transom-record"]
    assert server.process.wait(30) == 0
    assert statuses(server) == ["failed", "failed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_and_well(tiny_server, number):
    server = tiny_server(shutdown_seconds="600")
    whole(server, max_tokens=2)
    engine = server.engine
    with httpx2.Client(base_url=server.url) as kept_open:
        kept_open.get("/health")
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
    assert not is_alive(engine)
    assert statuses(server) == ["complete"]


def test_a_client_that_reads_nothing_does_not_hold_the_end_up_for_ever(tiny_server):
    server = tiny_server(shutdown_seconds="1")
    many = [[5 + 7 * i, 9] for i in range(40)]
    with streaming(server, prompt=many, logprobs=20):
        time.sleep(1)
        server.process.terminate()
        assert server.process.wait(30) == 0
    assert len(statuses(server)) == 1
