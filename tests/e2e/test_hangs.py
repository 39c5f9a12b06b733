"""An engine that hangs is an engine that died, and one that comes back must be the one that was."""

from __future__ import annotations

import os
import signal
import time

import httpx2
import pytest

from tests.e2e.asking import metric, streaming, whole
from tests.e2e.server import is_alive

pytestmark = pytest.mark.e2e

RESTARTS = "transom_engine_restarts_total"


def test_a_stream_survives_an_engine_that_hangs(tiny_server):
    server = tiny_server(engine_hang_seconds="2")
    answer = whole(server)
    engine = server.engine
    with streaming(server) as stream:
        stream.read(tokens=5)
        os.kill(engine, signal.SIGSTOP)
        stream.read()
    assert stream.done
    assert stream.error is None
    assert stream.is_same_as(answer)
    assert metric(server, RESTARTS, model="tiny") == 1
    assert not is_alive(engine)
    replay = httpx2.post(f"{server.url}/v1/records/{stream.record}/replay", timeout=60).json()
    assert replay["level"] == "EXACT"


def test_an_engine_without_work_may_be_silent_for_long(tiny_server):
    server = tiny_server(engine_hang_seconds="1")
    whole(server, max_tokens=3)
    time.sleep(2.5)
    assert metric(server, RESTARTS, model="tiny") == 0
    whole(server, max_tokens=3)


def test_a_server_answers_while_its_engine_hangs(tiny_server):
    server = tiny_server(engine_hang_seconds="60")
    with streaming(server) as stream:
        stream.read(tokens=5)
        os.kill(server.engine, signal.SIGSTOP)
        # Far more than the pipe to the engine holds.
        prompt = [[383] * 480] * 256
        asked = {"model": "tiny", "prompt": prompt, "max_tokens": 1}
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{server.url}/v1/completions", json=asked, timeout=2)
        assert httpx2.get(f"{server.url}/health", timeout=2).status_code == 200
        os.kill(server.engine, signal.SIGCONT)
        assert stream.read().done
    assert metric(server, RESTARTS, model="tiny") == 0


def test_a_model_that_was_changed_on_disk_is_not_served_after_the_engine_died(tiny_server, tiny_models):
    server = tiny_server()
    weights = next(tiny_models.glob("tiny/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    with streaming(server) as stream:
        stream.read(tokens=5)
        os.kill(server.engine, signal.SIGSTOP)
        weights.write_bytes(bytes(content))
        os.kill(server.engine, signal.SIGKILL)
        stream.read()
    assert stream.done
    assert stream.error is not None
    assert stream.error["code"] == "engine_unavailable"
    assert "model.safetensors differs from the manifest" in stream.error["message"]
    assert httpx2.get(f"{server.url}/ready").status_code == 503
    refused = httpx2.post(f"{server.url}/v1/completions", json={"model": "tiny", "prompt": "hi"})
    assert refused.status_code == 503
    record = httpx2.get(f"{server.url}/v1/records/{stream.record}").json()
    assert record["status"] == "failed"
