"""The rig of `gateway.py`: it counts what it sends, and fails where an answer is none."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from contextlib import asynccontextmanager
from itertools import pairwise

import httpx2
import pytest
from test_results import documented

from benchmarks.gateways import answers
from benchmarks.gateways.grant import make_key
from benchmarks.gateways.loop import converse
from benchmarks.gateways.measure import Comparison, Gateway, Sizes
from benchmarks.gateways.ours import InstantBackend
from benchmarks.gateways.upstream import Upstream
from benchmarks.load.page import page
from benchmarks.load.wire import Address
from benchmarks.load.words import SHOWN, name_setting
from tests.documents import ROOT
from tests.fakes import make_root
from tests.http.door import parse_events, settings
from transom.app import create_app
from transom.backends.tokenizer import LocalTokenizer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("benchmarks.gateways.upstream.PAUSE", 0)
    monkeypatch.setattr("benchmarks.gateways.ours.PAUSE", 0)


@asynccontextmanager
async def listening(protocol):
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Address.parse(f"http://127.0.0.1:{port}/v1")
    finally:
        server.close()


@pytest.fixture
async def upstream():
    async with listening(Upstream) as address:
        yield Gateway(label="ours", address=address, pid=os.getpid(), version="1")


class Refusing(asyncio.Protocol):
    """Answers with an error, or hangs up."""

    reply = b'HTTP/1.1 500 No\r\ncontent-length: 11\r\n\r\n{"error":1}'

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        if self.reply:
            self._transport.write(self.reply)
        else:
            self._transport.close()


async def test_an_error_is_no_answer():
    async with listening(Refusing) as address:
        gateway = Gateway(label="broken", address=address, pid=os.getpid())
        tally, _ = await converse(address, gateway.request(stream=False), 5, 2)
        assert tally.seconds == []
        assert len(tally.problems) == 5
        comparison = Comparison(gateways=[gateway], upstream=gateway, rounds=1, sizes=Sizes())
        with pytest.raises(ConnectionError, match="broken: status 500"):
            await comparison.run()


async def test_a_connection_that_ends_early_is_no_answer(monkeypatch):
    monkeypatch.setattr(Refusing, "reply", b"")
    async with listening(Refusing) as address:
        gateway = Gateway(label="broken", address=address, pid=os.getpid())
        tally, _ = await converse(address, gateway.request(stream=False), 5, 2)
    assert (tally.seconds, len(tally.problems)) == ([], 2)


async def test_every_request_is_answered_once(upstream):
    tally, seconds = await converse(upstream.address, upstream.request(stream=False), 50, 8)
    assert (len(tally.seconds), tally.events, tally.problems) == (50, 0, [])
    assert 0 < max(tally.seconds) <= seconds


async def test_events_of_streams_are_counted_without_the_last(upstream):
    tally, _ = await converse(upstream.address, upstream.request(stream=True), 6, 3)
    assert (len(tally.seconds), tally.events) == (6, 6 * (answers.CHUNKS + 1))


def test_no_chunk_of_a_stream_is_said_twice_in_a_row():
    said = [event for event in answers.events() if b'"content"' in event]
    assert len(said) == answers.CHUNKS
    assert all(one != other for one, other in pairwise(said))


async def test_a_comparison_makes_a_row_of_each_scenario_that_the_page_can_show(upstream):
    sizes = Sizes(latency=4, throughput=8, streams=2, at_once=2, streams_at_once=2)
    told = []
    other = Gateway(label="litellm", address=upstream.address, pid=os.getpid())
    comparison = Comparison(
        gateways=[upstream, other], upstream=upstream, rounds=2, sizes=sizes, say=told.append
    )
    rows = await comparison.run()
    assert len(told) == 12
    assert len(rows) == 6
    for row in rows:
        assert len(row.rounds) == 2
        assert set(SHOWN[row.scenario]) <= row.rounds[0].keys()
        assert name_setting(row.scenario, row.settings) != row.scenario
    text = "\n".join(page(rows))
    assert "### Transom 1 and litellm" in text
    assert "processor time of a chunk, µs" in text
    assert text.count("saves a hop") == 1


class TestOurs:
    @pytest.fixture
    async def client(self, tmp_path):
        (tmp_path / "root").mkdir()
        backend = InstantBackend(LocalTokenizer(make_root(tmp_path / "root")))
        key = await make_key(settings(tmp_path / "home"), backend)
        app = create_app(settings(tmp_path / "home"), backends={answers.MODEL: backend})
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)
            transport = httpx2.ASGITransport(app=app)
            headers = {"authorization": f"Bearer {key}"}
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://door", headers=headers
            ) as client:
                yield client

    async def test_it_answers_as_the_upstream_does_and_puts_it_on_record(self, client):
        reply = await client.post("/v1/chat/completions", json=answers.question(stream=False))
        assert reply.json()["choices"][0]["message"]["content"] == "".join(answers.WORDS)
        record = reply.headers["x-transom-record"]
        assert (await client.post(f"/v1/records/{record}/replay")).json()["level"] == "EXACT"

    async def test_it_streams_as_many_chunks_as_the_upstream_and_one_for_the_role(self, client):
        reply = await client.post("/v1/chat/completions", json=answers.question(stream=True))
        events = parse_events(reply.content)
        assert len(events) == answers.CHUNKS + 3
        assert reply.content.count(b"data: {") == answers.CHUNKS + 2

    async def test_its_key_has_limits_of_every_kind(self, client):
        reply = await client.post("/v1/chat/completions", json=answers.question(stream=False))
        policy = reply.headers["ratelimit-policy"]
        assert {"requests_per_minute", "tokens_per_minute", "tokens_per_day"} <= set(policy.split('"'))
        limits = (await client.get("/v1/usage")).json()["limits"]
        kinds = {each["account"].partition(":")[0] for each in limits}
        assert {"key", "person", "project", "grant", "tier", "model"} <= kinds
        assert {"requests_in_flight", "tokens_total", "engine_seconds"} <= {each["budget"] for each in limits}

    async def test_without_a_key_it_says_no(self, client):
        reply = await client.post(
            "/v1/chat/completions",
            json=answers.question(stream=False),
            headers={"authorization": "Bearer tr_no"},
        )
        assert reply.status_code == 401


@pytest.mark.parametrize("command", documented("benchmarks/gateway.py"))
def test_a_documented_command_can_be_read(command):
    path = ROOT / "benchmarks" / "gateway.py"
    spec = importlib.util.spec_from_file_location("gateway_command", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._parse(command).rounds == 5
