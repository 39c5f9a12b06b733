"""What whoever watches a real server is shown: the engine's own numbers, as they are."""

from __future__ import annotations

import os
import signal
import time

import httpx2
import pytest

from tests.e2e.asking import LONG, metric, streaming, whole
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

SEQUENCES = len(LONG["prompt"])
COUNTERS = {
    "generated": ("transom_tokens_total", {"kind": "generated"}),
    "prompt": ("transom_tokens_total", {"kind": "prompt"}),
    "steps": ("transom_steps_total", {}),
    "step seconds": ("transom_step_seconds_total", {}),
    "batch sequences": ("transom_batch_sequences_total", {}),
    "batch tokens": ("transom_batch_tokens_total", {}),
    "restarts": ("transom_engine_restarts_total", {}),
    "refused": ("transom_overload_refusals_total", {"limit": "project"}),
    "first tokens": ("transom_time_to_first_token_seconds_count", {}),
    "later tokens": ("transom_inter_token_latency_seconds_count", {}),
    "ended": ("transom_e2e_latency_seconds_count", {}),
}


@pytest.fixture(scope="module")
def server(tiny_library, tmp_path_factory):
    """One server for all of these, with room for few: each test looks at what changes."""
    home = tmp_path_factory.mktemp("home")
    running = Server(home, tiny_library, allow_anonymous="true", max_num_seqs="4", max_queue="8")
    running.start()
    yield running
    running.stop()


def read(server: Server) -> dict[str, float]:
    return {name: metric(server, sample, **labels) for name, (sample, labels) in COUNTERS.items()}


def until_idle(server: Server) -> None:
    deadline = time.monotonic() + 20
    gauges = ("transom_sequences_running", "transom_sequences_waiting", "transom_cache_used_pages")
    while any(metric(server, gauge) for gauge in gauges):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_busy(server: Server) -> None:
    """The engine tells its state a few times a second, and not with the first token."""
    deadline = time.monotonic() + 5
    while not metric(server, "transom_sequences_running") + metric(server, "transom_sequences_waiting"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def grown(server: Server, before: dict[str, float]) -> dict[str, float]:
    """What changed, once the engine has said its last word."""
    until_idle(server)
    return {name: value - before[name] for name, value in read(server).items()}


def test_metrics_and_top_show_what_the_engine_did(server):
    until_idle(server)
    before = read(server)
    whole(server)
    change = grown(server, before)
    generated = SEQUENCES * LONG["max_tokens"]
    assert change["generated"] == generated
    assert (change["first tokens"], change["ended"]) == (SEQUENCES, SEQUENCES)
    assert change["later tokens"] == generated - SEQUENCES
    assert change["steps"] >= LONG["max_tokens"]
    assert change["batch sequences"] >= generated
    assert change["batch tokens"] >= generated
    assert change["step seconds"] > 0
    assert change["restarts"] == 0
    assert metric(server, "transom_cache_pages") > 0
    assert metric(server, "transom_requests_total", endpoint="/v1/completions", status="200") >= 1
    shown = server.command("top", server.url, "--once", "--interval", "0.3")
    assert "tiny\tsequences\t0 running · 0 waiting" in shown
    assert "tiny\tso far\t" in shown


def test_counters_do_not_fall_when_the_engine_dies(server):
    whole(server)
    until_idle(server)
    before = read(server)
    with streaming(server) as stream:
        stream.read(tokens=5)
        os.kill(server.engine, signal.SIGKILL)
        assert stream.read().done
    change = grown(server, before)
    assert change["restarts"] == 1
    assert change["generated"] == SEQUENCES * LONG["max_tokens"]
    assert min(change["steps"], change["batch tokens"], change["step seconds"]) > 0


def test_an_abandoned_stream_leaves_no_sequence_behind(server):
    with streaming(server) as stream:
        stream.read(tokens=2)
        until_busy(server)
    until_idle(server)


def test_too_much_at_once_is_refused_and_the_rest_answered(server):
    until_idle(server)
    before = read(server)
    body = {"model": "tiny", "prompt": ["a", "b", "c", "d", "e"], "max_tokens": 1}
    with streaming(server) as stream:
        stream.read(tokens=1)
        os.kill(server.engine, signal.SIGSTOP)
        refused = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=10)
        os.kill(server.engine, signal.SIGCONT)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert stream.read().done
    assert grown(server, before)["refused"] == 1
    assert httpx2.post(f"{server.url}/v1/completions", json=body, timeout=10).status_code == 200
