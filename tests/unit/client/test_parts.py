"""Large results through the client: fetched by ranges, resumed where they broke, checked, and let go."""

from __future__ import annotations

import asyncio
import json
import time

import httpx2
import numpy as np
import pytest

from tests.parts import ARRAY, BODY, DEPLOYMENT, KeepingServer
from transom import Client
from transom.client import ServerUnreachable, UnexpectedReply, downloads
from transom.errors import InvalidRequest

pytestmark = pytest.mark.anyio

PLAN = {"model": "m", "runs": {"a": {"input": "x"}}, "return": ["a.x"]}


@pytest.fixture
def server(monkeypatch):
    async def at_once(_seconds):
        pass

    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    return KeepingServer()


@pytest.fixture
def client(kind, server):
    return kind("http://server", "", transport=httpx2.MockTransport(server))


async def trace(client, plan=PLAN, **more):
    found = client.trace(plan, **more)
    return found if isinstance(client, Client) else await found


async def test_a_result_is_kept_in_a_file_and_read_from_it(client, server, tmp_path):
    out = tmp_path / "x.safetensors"
    found = await trace(client, out=out)
    assert out.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert (found.record, found.deployment, set(found)) == ("rec_1", DEPLOYMENT, {"a.x", "a.total"})
    np.testing.assert_array_equal(found["a.x"].at(layer=1), ARRAY[1])
    assert float(found["a.total"].data) == 7
    # What is done to the numbers is not done to the file.
    found["a.x"].data[:] = 0
    assert out.read_bytes() == BODY
    assert server.methods == ["POST", "GET", "DELETE"]


async def test_one_that_does_not_fit_an_answer_is_fetched_unasked(client, server):
    server.too_large = True
    found = await trace(client)
    np.testing.assert_array_equal(found["a.x"].data, ARRAY)
    formats = [json.loads(request.content)["format"] for request in server.requests[:2]]
    assert formats == ["safetensors", "parts"]


async def test_a_trace_that_reads_much_is_fetched_too(client, server):
    server.too_large = True
    model = client.model("m") if isinstance(client, Client) else await client.model("m")
    running = model.trace("x").read("resid_post.*").run()
    found = running if isinstance(client, Client) else await running
    np.testing.assert_array_equal(found["a.x"].data, ARRAY)
    assert server.methods == ["POST", "POST", "GET", "DELETE"]


async def test_one_that_fits_comes_at_once(client, server):
    assert (await trace(client)).record == "rec_1"
    assert server.methods == ["POST"]


async def test_a_plan_may_say_that_it_is_to_be_fetched(client, server):
    assert (await trace(client, PLAN | {"format": "parts"})).deployment == DEPLOYMENT
    assert server.methods == ["POST", "GET", "DELETE"]


async def test_a_line_that_breaks_again_and_again_goes_on_where_it_broke(client, server, tmp_path):
    server.breaks = [10, 0, 60, 0, 0, 1]
    await trace(client, out=tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert server.ranges == [f"bytes={start}-" for start in (0, 10, 10, 70, 70, 70, 71)]
    assert all(request.headers["accept-encoding"] == "identity" for request in server.requests[1:-1])


async def test_a_line_that_brings_nothing_is_given_up(client, server, tmp_path):
    server.breaks = [20] + [0] * 20
    (tmp_path / "x").write_bytes(b"earlier")
    with pytest.raises(ServerUnreachable, match="the line broke"):
        await trace(client, out=tmp_path / "x")
    assert len(server.ranges) == 1 + downloads.ATTEMPTS - 1
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"earlier")]
    # The server keeps it: whoever has the manifest may try again.
    assert "DELETE" not in server.methods


async def test_a_part_that_was_damaged_on_the_way_is_fetched_again(client, server, tmp_path):
    server.spoil = lambda number, body: body if number else body[:60] + b"\0" + body[61:]
    await trace(client, out=tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert server.ranges == ["bytes=0-", "bytes=50-"]


async def test_one_that_is_damaged_each_time_is_given_up(client, server, tmp_path):
    server.spoil = lambda _number, body: body[:-1] + b"\1"
    with pytest.raises(ServerUnreachable, match="did not arrive as they were sent"):
        await trace(client, out=tmp_path / "x")
    assert not list(tmp_path.iterdir())


async def test_an_answer_that_ends_early_is_gone_on_with(client, server, tmp_path):
    server.spoil = lambda number, body: body if number else body[:33]
    await trace(client, out=tmp_path / "x")
    assert server.ranges == ["bytes=0-", "bytes=33-"]


async def test_more_than_was_listed_is_no_result(client, server):
    server.spoil = lambda _number, body: body + b"more"
    with pytest.raises(UnexpectedReply, match="more than"):
        await trace(client, PLAN | {"format": "parts"})


async def test_a_server_that_answers_no_ranges_is_no_transom_server(client, server):
    server.whole = True
    with pytest.raises(UnexpectedReply, match="range"):
        await trace(client, PLAN | {"format": "parts"})


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"file": {"url": "/", "bytes": 1}},
        {"parts": [{"start": 1, "bytes": len(BODY), "sha256": ""}]},
        {"parts": [{"start": 0, "bytes": -1, "sha256": ""}]},
        {"tensors": {"a.x": {}}},
    ],
)
async def test_a_manifest_that_does_not_hang_together_is_none(client, server, change):
    server.manifest |= change
    with pytest.raises(UnexpectedReply):
        await trace(client, PLAN | {"format": "parts"})
    assert "GET" not in server.methods


async def test_the_servers_word_for_the_path_is_not_followed(client, server):
    server.manifest["file"]["url"] = "http://elsewhere/steal"
    await trace(client, PLAN | {"format": "parts"})
    assert {request.url.host for request in server.requests} == {"server"}


async def test_a_place_that_cannot_be_written_is_refused_before_anything_is_charged(client, server, tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be written"):
        await trace(client, out=tmp_path / "nowhere" / "x")
    assert server.requests == []
