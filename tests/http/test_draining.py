"""A server that was told to end: what runs goes on, and nobody else comes in."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.http.door import HELLO, MODEL, chunks_of, parse_events
from transom.errors import EngineUnavailable

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASK = {COMPLETIONS: {"prompt": "The light"}, CHAT: {"messages": HELLO}}
PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["completions", "chat"])


async def begun(door):
    async with asyncio.timeout(10):
        while not door.backend.taken:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@PATHS
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_new_is_taken_and_the_connection_ends(own_door, path, stream):
    own_door.house.draining = True
    reply = await own_door.post(path, {"model": MODEL, "stream": stream} | ASK[path])
    assert reply.status_code == 503
    assert reply.headers["connection"] == "close"
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] == "engine_unavailable"
    assert "shutting down" in reply.json()["error"]["message"]
    assert own_door.backend.taken == []


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/records", "/tokenizer_info", f"/models/{MODEL}/v1/models"]
)
async def test_nobody_is_let_in_by_another_door_either(own_door, path):
    own_door.house.draining = True
    reply = await own_door.client.get(path)
    assert (reply.status_code, reply.headers["connection"]) == (503, "close")


async def test_whoever_watches_is_told_at_once(own_door):
    own_door.house.draining = True
    ready = await own_door.client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {MODEL: False})
    assert (await own_door.client.get("/health")).status_code == 200
    metrics = await own_door.client.get("/metrics")
    assert metrics.status_code == 200
    assert {ready.headers["connection"], metrics.headers["connection"]} == {"close"}


@PATHS
async def test_a_stream_that_runs_is_finished_and_so_is_its_record(own_door, path):
    own_door.backend.knobs.pause = 0.01
    streaming = asyncio.create_task(own_door.stream(path, **ASK[path], max_tokens=20, ignore_eos=True))
    await begun(own_door)
    await own_door.house.drain(30)
    chunks = chunks_of(await streaming)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert not own_door.backend.ready
    record = await own_door.house.records.get(chunks[0]["id"], await project(own_door))
    assert record.status == "complete"


async def project(door):
    (key,) = await door.house.keys.list_keys()
    return key.project_id


async def test_the_drain_waits_for_a_replay_too(own_door):
    record = (await own_door.complete(max_tokens=20, ignore_eos=True))["id"]
    own_door.backend.taken.clear()
    own_door.backend.knobs.pause = 0.01
    replaying = asyncio.create_task(own_door.replay(record))
    await begun(own_door)
    await own_door.house.drain(30)
    assert (await replaying)["level"] == "EXACT"


@PATHS
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_finished_in_time_ends_with_a_word_on_why(own_door, path, stream, monkeypatch):
    ended = asyncio.Event()
    generate = own_door.backend.generate

    async def until_it_ends(request):
        async for delta in generate(request):
            yield delta
            if len(own_door.backend.taken) and ended.is_set():
                raise EngineUnavailable(
                    "The server is shutting down, and this answer was not finished in time."
                )

    async def stop():
        ended.set()

    monkeypatch.setattr(own_door.backend, "generate", until_it_ends)
    monkeypatch.setattr(own_door.backend, "stop", stop)
    own_door.backend.knobs.pause = 0.01
    body = {"model": MODEL, "stream": stream, "max_tokens": 200, "ignore_eos": True} | ASK[path]
    asking = asyncio.create_task(own_door.post(path, body))
    await begun(own_door)
    await own_door.house.drain(0.05)
    reply = await asking
    if stream:
        (name, error), done = parse_events(reply.content)[-2:]
        assert (name, done) == ("error", (None, "[DONE]"))
    else:
        assert reply.status_code == 503
        error = reply.json()
    assert "shutting down" in error["error"]["message"]
    record = await own_door.house.records.get(reply.headers["x-transom-record"], await project(own_door))
    assert record.status == "failed"
    statement = json.dumps(record.view().statement)
    assert "engine_unavailable" in statement


async def test_an_idle_server_drains_at_once(own_door):
    async with asyncio.timeout(5):
        await own_door.house.drain(600)
