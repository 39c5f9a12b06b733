"""The least that a Python gateway can do: FastAPI reads a typed body, aiohttp hands it on.

Runs in the environment of `peers/litellm.sh`, which has FastAPI, uvicorn and aiohttp:

    python benchmarks/gateways/passthrough.py --port 8903 --upstream http://127.0.0.1:8901/v1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Message(BaseModel):
    """One turn."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """What is read of a request."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    stream: bool = False


def make_app(upstream: str) -> FastAPI:
    """An application that hands requests on to `upstream`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "instant", "object": "model"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest) -> Response:
        asked = app.state.session.post(
            upstream + "/chat/completions", json=body.model_dump(exclude_none=True)
        )
        if not body.stream:
            async with asked as reply:
                return Response(await reply.read(), reply.status, media_type="application/json")
        return StreamingResponse(relay(asked), media_type="text/event-stream")

    return app


async def relay(asked: Any) -> AsyncIterator[bytes]:
    """The events of the upstream, as they come."""
    async with asked as reply:
        async for piece in reply.content.iter_any():
            yield piece


def main(arguments: list[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args(arguments)
    uvicorn.run(
        make_app(options.upstream), host="127.0.0.1", port=options.port, log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main(sys.argv[1:])
