"""The application with its lifespan run, and a client with a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from tests import databases
from tests.fakes import FakeBackend
from transom.app import create_app
from transom.backends.tokenizer import LocalTokenizer
from transom.config import Settings
from transom.services.house import House, utc_now

MODEL = "fake"


@dataclass
class Door:
    app: FastAPI
    backend: FakeBackend
    client: httpx2.AsyncClient
    key: str

    @property
    def house(self) -> House:
        return self.app.state.house

    async def post(self, path: str, body: Any) -> httpx2.Response:
        return await self.client.post(path, json=body)

    async def complete(self, **body: Any) -> dict[str, Any]:
        """The answer of /v1/completions, which is expected to be one."""
        reply = await self.post("/v1/completions", {"model": MODEL, "prompt": "The light"} | body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def chat(self, **body: Any) -> dict[str, Any]:
        reply = await self.post("/v1/chat/completions", {"model": MODEL, "messages": HELLO} | body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def stream(self, path: str, **body: Any) -> list[tuple[str | None, Any]]:
        """The (event, data) pairs of a stream; checks each byte of the framing."""
        reply = await self.post(path, {"model": MODEL, "stream": True} | body)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].startswith("text/event-stream")
        return parse_events(reply.content)

    async def record(self, record_id: str) -> dict[str, Any]:
        reply = await self.client.get(f"/v1/records/{record_id}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def replay(self, record_id: str) -> dict[str, Any]:
        reply = await self.client.post(f"/v1/records/{record_id}/replay")
        assert reply.status_code == 200, reply.text
        return reply.json()


HELLO = [{"role": "user", "content": "Is there a light in the window?"}]


def parse_events(content: bytes) -> list[tuple[str | None, Any]]:
    assert content.endswith(b"\n\n")
    events: list[tuple[str | None, Any]] = []
    for block in content[:-2].split(b"\n\n"):
        lines = block.split(b"\n")
        name = None
        if lines[0].startswith(b"event: "):
            name = lines.pop(0)[7:].decode()
        assert len(lines) == 1
        assert lines[0].startswith(b"data: ")
        data = lines[0][6:]
        events.append((name, "[DONE]" if data == b"[DONE]" else json.loads(data)))
    return events


def chunks_of(events: list[tuple[str | None, Any]]) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    assert events[-1] == (None, "[DONE]")
    assert all(name is None and "error" not in data for name, data in events[:-1])
    return [data for _, data in events[:-1]]


def settings(home: Path, **more: Any) -> Settings:
    return Settings(**{"home": home, "allow_anonymous": False, "database_url": databases.fresh(home)} | more)


@asynccontextmanager
async def open_door(
    home: Path, tokenizer: LocalTokenizer, clock: Callable[[], datetime] = utc_now, **more: Any
) -> AsyncIterator[Door]:
    backend = FakeBackend(MODEL, tokenizer)
    app = create_app(settings(home, **more), backends={MODEL: backend}, clock=clock)
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(backend.started.wait(), 10)
        key = (await app.state.house.keys.create(name="tests")).text
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://door", headers=headers) as client:
            yield Door(app, backend, client, key)
