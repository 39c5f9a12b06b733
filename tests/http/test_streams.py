"""Streams: exact framing, the same answer in parts, and no ending before the record is on disk."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.http.door import HELLO, MODEL, chunks_of
from transom.errors import StorageError

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASK = {COMPLETIONS: {"prompt": "The light"}, CHAT: {"messages": HELLO}}
PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["completions", "chat"])


def endings(events):
    return [
        choice["finish_reason"]
        for _, data in events
        if data != "[DONE]" and "choices" in data
        for choice in data["choices"]
        if choice["finish_reason"] is not None
    ]


def joined(lists):
    """One list of all, where None is an empty one."""
    return [item for each in lists for item in each or ()]


@PATHS
async def test_an_engine_that_fails_midway_ends_the_stream_with_an_error_event(own_door, path):
    own_door.backend.knobs.fail_after = 3
    events = await own_door.stream(path, **ASK[path], max_tokens=8)
    assert events[-1] == (None, "[DONE]")
    name, data = events[-2]
    assert name == "error"
    assert set(data) == {"error"}
    assert set(data["error"]) == {"message", "type", "param", "code", "layer"}
    assert (data["error"]["code"], data["error"]["type"]) == ("generation_failed", "server_error")
    assert [name for name, _ in events].count("error") == 1
    assert endings(events) == []
    assert (await own_door.record(events[0][1]["id"]))["status"] == "failed"


@PATHS
@pytest.mark.parametrize("knob", ["crash_after", "vanish_after"])
async def test_an_engine_that_breaks_its_promise_ends_the_stream_too(own_door, path, knob):
    setattr(own_door.backend.knobs, knob, 2)
    events = await own_door.stream(path, **ASK[path], max_tokens=8)
    assert events[-2][0] == "error"
    assert endings(events) == []


@PATHS
async def test_an_engine_that_is_not_there_is_an_error_event_and_a_failed_record(own_door, path):
    own_door.backend.knobs.unavailable = True
    reply = await own_door.post(path, {"model": MODEL, "stream": True} | ASK[path])
    assert reply.content.startswith(b"event: error\ndata: {")
    assert reply.content.endswith(b"}\n\ndata: [DONE]\n\n")
    assert (await own_door.record(reply.headers["x-transom-record"]))["status"] == "failed"


@PATHS
async def test_a_record_that_cannot_be_kept_means_no_ending(own_door, path, monkeypatch):
    async def append(answer, beside=None):
        raise StorageError("The disk is full.")

    monkeypatch.setattr(own_door.house.records, "append", append)
    events = await own_door.stream(path, **ASK[path], max_tokens=3)
    assert endings(events) == []
    assert events[-2][0] == "error"
    assert events[-2][1]["error"]["code"] == "storage_error"
    assert events[-1] == (None, "[DONE]")


@PATHS
async def test_an_ending_is_sent_only_once_the_record_is_in_the_database(own_door, path, monkeypatch):
    history = []
    keep = own_door.house.records.append

    async def append(answer, beside=None):
        await asyncio.sleep(0.05)
        history.append("asked to keep")
        record = await keep(answer, beside)
        history.append("on disk")
        return record

    monkeypatch.setattr(own_door.house.records, "append", append)
    body = json.dumps({"model": MODEL, "stream": True, "max_tokens": 3, "seed": 1} | ASK[path]).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {own_door.key}".encode()),
            (b"content-type", b"application/json"),
        ],
    }
    inbox = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def send(message):
        history.extend(message.get("body", b"").decode().splitlines())

    await own_door.app(scope, inbox.get, send)
    ending = next(i for i, line in enumerate(history) if '"finish_reason":"length"' in line)
    assert history.index("on disk") < ending
    assert history.index("asked to keep") > 3
    assert history[-2] == "data: [DONE]"


@PATHS
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 3},
        {"temperature": 0, "max_tokens": 40},
        {"stop": ["er", "\n", "th"], "temperature": 0, "max_tokens": 60},
        {"logit_bias": {"2": 100}},
        {"logit_bias": {"65": 100}, "stop_token_ids": [65]},
    ],
    ids=["plain", "n", "greedy", "stop", "eos", "stop token"],
)
async def test_the_parts_add_up_to_the_answer_that_is_no_stream(own_door, path, stride, more):
    own_door.backend.knobs.stride = stride
    asked = {"model": MODEL, "seed": 5, "max_tokens": 12, "return_token_ids": True} | ASK[path] | more
    asked |= {"logprobs": 2} if path == COMPLETIONS else {"logprobs": True, "top_logprobs": 2}
    whole = (await own_door.post(path, asked)).json()
    parts = chunks_of(await own_door.stream(path, **asked))
    for choice in whole["choices"]:
        mine = [c for part in parts for c in part["choices"] if c["index"] == choice["index"]]
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        assert mine[-1]["stop_reason"] == choice["stop_reason"]
        assert joined(c.get("token_ids") for c in mine) == choice["token_ids"]
        if path == COMPLETIONS:
            assert "".join(c["text"] for c in mine) == choice["text"]
            for column, values in choice["logprobs"].items():
                assert joined(c["logprobs"] and c["logprobs"][column] for c in mine) == values
        else:
            assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
            logprobs = joined(c["logprobs"] and c["logprobs"]["content"] for c in mine)
            assert logprobs == choice["logprobs"]["content"]


async def test_an_echo_adds_up_too(own_door):
    asked = {"prompt": [[5], [1, 40, 2]], "echo": True, "logprobs": 2, "prompt_logprobs": 1}
    asked |= {"seed": 3, "max_tokens": 4, "n": 2, "return_token_ids": True}
    whole = await own_door.complete(**asked)
    parts = chunks_of(await own_door.stream(COMPLETIONS, **asked))
    for choice in whole["choices"]:
        mine = [c for part in parts for c in part["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        for column, values in choice["logprobs"].items():
            assert joined(c["logprobs"] and c["logprobs"][column] for c in mine) == values
        assert mine[0]["prompt_logprobs"] == choice["prompt_logprobs"]
        assert mine[0]["prompt_token_ids"] == choice["prompt_token_ids"]


@PATHS
async def test_an_echo_or_an_answer_of_no_tokens_has_an_ending_too(door, path):
    events = await door.stream(path, **ASK[path], max_tokens=0)
    assert endings(events) == ["length"]


async def test_a_chat_stream_says_of_the_prompt_what_was_asked_for(door):
    asked = {"messages": HELLO, "seed": 1, "n": 2, "prompt_logprobs": 1, "return_token_ids": True}
    whole = await door.chat(max_tokens=3, **asked)
    first, *rest = chunks_of(await door.stream(CHAT, max_tokens=3, **asked))
    for name in ("prompt_logprobs", "prompt_token_ids"):
        assert first[name] == whole[name]
        assert all(name not in part for part in rest)


async def test_a_chat_stream_opens_each_choice_with_its_role(door):
    parts = chunks_of(await door.stream(CHAT, messages=HELLO, n=3, max_tokens=3))
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    for index in range(3):
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert all("role" not in choice["delta"] for choice in mine[1:])
        assert mine[-1]["delta"] == {}


@PATHS
async def test_each_chunk_has_the_same_envelope_as_the_record(door, path):
    reply = await door.post(path, {"model": MODEL, "stream": True, "max_tokens": 3} | ASK[path])
    assert reply.headers["cache-control"] == "no-store"
    parts = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    shared = {
        json.dumps([part[k] for k in ("id", "object", "created", "model", "transom")]) for part in parts
    }
    assert len(shared) == 1
    assert parts[0]["transom"]["record"] == parts[0]["id"] == reply.headers["x-transom-record"]
    assert (await door.record(parts[0]["id"]))["status"] == "complete"


@PATHS
async def test_usage_comes_in_the_last_chunk_and_only_when_asked_for(door, path):
    asked = {"seed": 1, "max_tokens": 5, "n": 2} | ASK[path]
    whole = (await door.post(path, {"model": MODEL} | asked)).json()
    *parts, last = chunks_of(await door.stream(path, **asked, stream_options={"include_usage": True}))
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert all(part["usage"] is None and part["choices"] for part in parts)
    for options in (None, {"include_usage": False}, {"include_usage": None}):
        silent = chunks_of(await door.stream(path, **asked, stream_options=options))
        assert all("usage" not in part and part["choices"] for part in silent)


async def test_a_stop_string_never_leaks_a_prefix(own_door):
    whole = (await own_door.complete(temperature=0, max_tokens=60))["choices"][0]["text"]
    for start in range(40):
        stop = whole[start : start + 5]
        asked = {"prompt": "The light", "temperature": 0, "max_tokens": 60, "stop": [stop, stop + "\0"]}
        said = ""
        expected = whole[: whole.index(stop)]
        for part in chunks_of(await own_door.stream(COMPLETIONS, **asked)):
            said += part["choices"][0]["text"]
            assert expected.startswith(said)
        assert said == expected


async def test_text_that_only_might_have_been_a_stop_string_is_said_in_the_end(door):
    whole = (await door.complete(temperature=0, max_tokens=10))["choices"][0]["text"]
    asked = {"prompt": "The light", "temperature": 0, "max_tokens": 10, "stop": whole[-6:] + "\0"}
    parts = chunks_of(await door.stream(COMPLETIONS, **asked))
    assert "".join(part["choices"][0]["text"] for part in parts) == whole


@PATHS
async def test_what_is_refused_is_refused_before_a_stream_begins(door, path):
    reply = await door.post(path, {"model": MODEL, "stream": True, "n": 0} | ASK[path])
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/json"
