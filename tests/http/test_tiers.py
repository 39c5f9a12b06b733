"""`service_tier`: when an answer comes, and never what it is."""

from __future__ import annotations

import json

import pytest

from tests.http.door import HELLO, MODEL, chunks_of

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASK = {COMPLETIONS: {"prompt": "The light"}, CHAT: {"messages": HELLO}}
PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["completions", "chat"])
TIERS = pytest.mark.parametrize(
    ("asked", "told", "priority"),
    [("auto", "default", "interactive"), ("default", "default", "interactive"), ("flex", "flex", "batch")],
)


@PATHS
@TIERS
async def test_a_tier_is_honoured_and_named_in_the_reply(own_door, path, asked, told, priority):
    body = {"model": MODEL, "max_tokens": 3, "seed": 1, "n": 2, "service_tier": asked} | ASK[path]
    reply = (await own_door.post(path, body)).json()
    assert reply["service_tier"] == told
    assert [request.priority for request in own_door.backend.taken] == [priority] * 2


@PATHS
@TIERS
async def test_a_stream_names_it_to_the_end(own_door, path, asked, told, priority):
    asked_for = {"max_tokens": 3, "service_tier": asked, "stream_options": {"include_usage": True}}
    chunks = chunks_of(await own_door.stream(path, **ASK[path], **asked_for))
    assert {chunk["service_tier"] for chunk in chunks} == {told}
    assert own_door.backend.taken[0].priority == priority


@PATHS
@pytest.mark.parametrize("more", [{}, {"service_tier": None}])
async def test_who_says_nothing_of_it_is_told_nothing_of_it(own_door, path, more):
    body = {"model": MODEL, "max_tokens": 1} | ASK[path] | more
    assert "service_tier" not in (await own_door.post(path, body)).json()
    assert all("service_tier" not in chunk for chunk in chunks_of(await own_door.stream(path, **body)))
    assert own_door.backend.taken[0].priority == "interactive"


@PATHS
async def test_the_answer_is_the_same_at_every_tier(door, path):
    body = {"model": MODEL, "max_tokens": 20, "seed": 7, "n": 2} | ASK[path]
    answers = [
        (await door.post(path, body | {"service_tier": tier})).json()["choices"]
        for tier in (None, "auto", "default", "flex")
    ]
    assert all(answer == answers[0] for answer in answers)


@PATHS
async def test_the_record_holds_the_tier_as_it_was_sent_and_replays(door, path):
    body = {"model": MODEL, "max_tokens": 3, "service_tier": "flex"} | ASK[path]
    record = await door.record((await door.post(path, body)).json()["id"])
    assert json.loads(record["openings"]["request"]["json"]) == body
    assert (await door.replay(record["id"]))["level"] == "EXACT"
