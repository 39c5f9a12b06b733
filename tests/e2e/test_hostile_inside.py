"""Broken plans against a real server with a tiny model: nothing is ever its fault, and no engine dies."""

from __future__ import annotations

import json
import random
import time

import httpx2
import pytest
from safetensors.numpy import load

from tests.e2e.asking import metric
from tests.e2e.server import Server
from tests.internals.valid_plans import CLEAN, JUNK, PLANS, changed, packed, places, plan, write

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BROKEN = 300
MOST_SECONDS = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_library):
    running = Server(tmp_path_factory.mktemp("hostile"), tiny_library, allow_anonymous="true")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(server):
    key = server.command("admin", "key", "create", "--name", "tests")
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def post(http, content, **more):
    return http.post("/v1/traces", content=json.dumps(content).encode(), **more)


def assert_well(server, http):
    """The engine is the one that it was, it answers, and nothing lies in the spool."""
    assert metric(server, "transom_engine_restarts_total", model="tiny") == 0
    assert post(http, PLANS["everywhere"]).status_code == 200
    assert is_swept(server)


def is_swept(server):
    """Whether the spool is empty, at the latest a moment after the last answer."""
    for _ in range(100):
        if not list((server.home / "spool").iterdir()):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_is_not_broken_is_answered_in_both_forms(server, http, name):
    reply = post(http, PLANS[name])
    assert reply.status_code == 200, reply.text
    arrays = load(reply.content)
    told = post(http, PLANS[name] | {"format": "json"}).json()["tensors"]
    assert {key: tensor["shape"] for key, tensor in told.items()} == {
        key: list(array.shape) for key, array in arrays.items()
    }
    assert_well(server, http)


def test_a_broken_plan_is_refused_by_name_or_answered(server, http):
    chance = random.Random(BROKEN)
    statuses = set()
    for _ in range(BROKEN):
        content = PLANS[chance.choice(sorted(PLANS))]
        how = chance.choice(["junk", "drop", "rename", "twice", "beside"])
        content = changed(content, chance.choice(places(content)), how, chance.choice(JUNK))
        began = time.monotonic()
        reply = post(http, content)
        assert time.monotonic() - began < MOST_SECONDS
        statuses.add(reply.status_code)
        if reply.status_code != 200:
            assert 400 <= reply.status_code < 500, (content, reply.text)
            error = reply.json()["error"]
            assert error["param"] or error["code"] == "invalid_json" or reply.status_code == 403, error
    assert {200, 400} <= statuses
    assert_well(server, http)


def test_what_fails_inside_is_a_400_that_names_the_field(server, http):
    change = write("resid_pre.1", "set", value=3e38)
    run = {"input": CLEAN, "write": [change], "read": {"x": {"at": "resid_post.1"}}}
    reply = post(http, plan({"a": run}, "a.x"))
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("plan_failed", "runs.a.write.0")
    assert_well(server, http)


def test_json_that_would_be_too_much_is_refused_before_it_runs(server, http):
    read = {f"r{index}": {"at": "mlp_act.*"} for index in range(60)}
    run = {"input": {"token_ids": [9] * 96}, "read": read}
    reply = post(http, plan({"a": run}, *(f"a.{name}" for name in read), format="json"))
    assert reply.json()["error"]["param"] == "format"


def test_whoever_leaves_leaves_nothing_behind(server, http):
    runs = {
        f"a{index}": {
            "input": {"token_ids": [9 + index] * 200},
            "generate": {"max_tokens": 300, "ignore_eos": True},
            "read": {"x": {"at": "resid_post.*"}},
        }
        for index in range(60)
    }
    content = plan(runs, *(f"{name}.x" for name in runs))
    for seconds in (0.1, 0.3, 0.6):
        with pytest.raises(httpx2.ReadTimeout):
            post(http, content, timeout=httpx2.Timeout(60, read=seconds))
    assert is_swept(server)
    assert_well(server, http)


def test_a_result_that_lies_in_the_spool_when_the_server_starts_is_deleted(server, http):
    left = server.home / "spool" / "rec_left.safetensors"
    left.write_bytes(b"left")
    server.kill()
    server.start()
    assert not left.exists()
    assert (
        post(
            http,
            plan(
                {"a": {"input": CLEAN, "read": {"x": {"at": "z.1", "reduce": {"project": packed(16)}}}}},
                "a.x",
            ),
        ).status_code
        == 200
    )
