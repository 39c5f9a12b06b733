"""Too much at once: refused before anything is taken, with a word on when there will be room."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.http.door import HELLO, MODEL, open_door
from tests.http.live import Live, until
from transom.backends.admission import UNMEASURED_SECONDS, WaitingRoom

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASK = {COMPLETIONS: {"prompt": "The light"}, CHAT: {"messages": HELLO}}
PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["completions", "chat"])


@pytest.fixture
async def crowded(tokenizer, tmp_path):
    """A door where six sequences of one project find room, and ten in all; who has no key is let in too."""
    async with open_door(tmp_path, tokenizer, allow_anonymous=True) as door:
        door.backend.room = WaitingRoom(MODEL, running=2, waiting=8)
        yield door


@pytest.fixture
def occupy(crowded):
    """Asks for answers that do not come, until told otherwise."""
    tasks = []

    async def ask(n=1, **headers):
        crowded.backend.knobs.hang_after = 0
        before = len(crowded.backend.taken)
        body = {"model": MODEL, "prompt": "The light", "max_tokens": 50, "n": n, "ignore_eos": True}
        request = crowded.client.post(COMPLETIONS, json=body, headers=headers)
        tasks.append(asyncio.create_task(request))
        async with asyncio.timeout(10):
            while len(crowded.backend.taken) < before + n:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        crowded.backend.knobs.hang_after = None
        return tasks[-1]

    yield ask
    for task in tasks:
        task.cancel()


ANONYMOUS = {"authorization": ""}


async def records(door):
    return (await door.client.get("/v1/records")).json()["data"]


@PATHS
@pytest.mark.parametrize("stream", [False, True])
async def test_who_finds_no_room_is_told_so_and_nothing_is_taken(crowded, occupy, path, stream):
    await occupy(6)
    taken = len(crowded.backend.taken)
    reply = await crowded.post(path, {"model": MODEL, "stream": stream} | ASK[path])
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["retry-after"] == str(UNMEASURED_SECONDS)
    assert "x-transom-record" not in reply.headers
    error = reply.json()["error"]
    assert (error["code"], error["type"], error["layer"]) == ("server_overloaded", "server_error", "engine")
    assert "its share is 6" in error["message"]
    assert len(crowded.backend.taken) == taken
    assert await records(crowded) == []


async def test_another_project_still_finds_room_and_fills_the_rest(crowded, occupy):
    await occupy(6)
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 1, "n": 4}
    assert (await crowded.client.post(COMPLETIONS, json=body, headers=ANONYMOUS)).status_code == 200
    await occupy(4, **ANONYMOUS)
    reply = await crowded.client.post(COMPLETIONS, json=body | {"n": 1}, headers=ANONYMOUS)
    assert reply.status_code == 503
    assert "10 sequences run or wait, of at most 10" in reply.json()["error"]["message"]


@pytest.mark.parametrize("more", [{"n": 3}, {"prompt": ["a", "b", "c"]}, {"best_of": 3}])
async def test_a_request_of_several_sequences_is_taken_whole_or_not_at_all(crowded, occupy, more):
    await occupy(4)
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 1}
    assert (await crowded.post(COMPLETIONS, body | more)).status_code == 503
    assert len(crowded.backend.taken) == 4
    assert (await crowded.post(COMPLETIONS, body | {"n": 2})).status_code == 200


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (COMPLETIONS, {"n": 7}, "n"),
        (COMPLETIONS, {"best_of": 7}, "best_of"),
        (COMPLETIONS, {"prompt": ["a"] * 7}, "prompt"),
        (COMPLETIONS, {"prompt": ["a"] * 4, "n": 2}, "prompt"),
        (CHAT, {"n": 7}, "n"),
    ],
)
async def test_what_could_never_find_room_is_not_told_to_come_again(crowded, path, more, param):
    reply = await crowded.post(path, {"model": MODEL} | ASK[path] | more)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert "more than 6 sequences" in reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("knob", [None, "fail_after", "crash_after", "vanish_after", "unavailable"])
async def test_room_is_given_back_however_an_answer_ends(crowded, knob, stream):
    if knob is not None:
        setattr(crowded.backend.knobs, knob, True if knob == "unavailable" else 2)
    for _ in range(4):
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 5, "n": 6, "stream": stream}
        reply = await crowded.post(COMPLETIONS, body)
        assert reply.status_code in ({200} if knob is None or stream else {500, 503})
        assert b"server_overloaded" not in reply.content
    crowded.backend.room.admit("anyone", 6)


async def test_room_is_given_back_one_sequence_at_a_time(crowded, occupy):
    crowded.backend.knobs.choice = 5
    await occupy(6)
    # Five of the six end, though their request does not.
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 1}
    async with asyncio.timeout(10):
        while (await crowded.post(COMPLETIONS, body | {"n": 5})).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await crowded.post(COMPLETIONS, body | {"n": 6})).status_code == 503


async def test_a_replay_needs_room_too_and_gives_it_back(crowded, occupy):
    record = (await crowded.complete(n=3, max_tokens=2))["id"]
    for _ in range(3):
        assert (await crowded.replay(record))["level"] == "EXACT"
    await occupy(4)
    reply = await crowded.client.post(f"/v1/records/{record}/replay")
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "server_overloaded"
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_record_that_no_longer_fits_whole_is_replayed_in_parts(crowded):
    record = (await crowded.complete(n=6, max_tokens=2))["id"]
    crowded.backend.room = WaitingRoom(MODEL, running=1, waiting=2)
    assert (await crowded.replay(record))["level"] == "EXACT"


async def test_the_engine_is_told_whose_turn_a_sequence_takes(crowded):
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 1}
    record = (await crowded.post(COMPLETIONS, body)).json()["id"]
    await crowded.client.post(COMPLETIONS, json=body, headers=ANONYMOUS)
    await crowded.replay(record)
    own = (await records(crowded))[0]["project"]
    assert [each.project for each in crowded.backend.taken] == [own, "anonymous", own]
    assert {each.priority for each in crowded.backend.taken} == {"interactive"}


@PATHS
@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_before_the_answer_began_leaves_their_room(crowded, path, stream):
    body = {"model": MODEL, "stream": stream, "n": 6, "max_tokens": 200, "ignore_eos": True} | ASK[path]
    headers = {"authorization": f"Bearer {crowded.key}", "content-type": "application/json"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    inbox = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
    inbox.put_nowait({"type": "http.disconnect"})

    async def send(message):
        if stream:
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        await crowded.app(scope, inbox.get, send)
    crowded.backend.room.admit("anyone", 6)


def test_a_client_that_leaves_leaves_its_room(tokenizer, tmp_path):
    with Live(tmp_path, tokenizer) as live:
        live.backend.room = WaitingRoom(MODEL, running=1, waiting=2)
        live.backend.knobs.hang_after = 1
        for stream in (False, True):
            with live.request(COMPLETIONS, n=2, max_tokens=50, ignore_eos=True, stream=stream):
                until(live.backend.hanging.is_set)
            until(lambda: not live.backend.room._inside)
            live.backend.hanging.clear()
