"""Replies that are no streams: one body, once the record is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from transom.api.errors import response_of
from transom.errors import EngineError
from transom.services.generation import Generation

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]


async def whole(request: Request, generation: Generation, build: Callable[[], dict[str, Any]]) -> Response:
    """Run `generation`, and answer with what `build` makes of it; a client that leaves aborts it."""
    try:
        with closing(generation):
            await while_present(request, generation.run())
    except EngineError as error:
        response = response_of(error)
    else:
        response = Response(orjson.dumps(build()), media_type="application/json")
    response.headers["x-transom-record"] = generation.record_id
    return response


async def while_present(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns; cancels it, and raises ClientDisconnect, when the client leaves first."""
    here = asyncio.current_task()
    assert here is not None  # noqa: S101  # a coroutine runs in a task
    gone = False

    async def watch() -> None:
        nonlocal gone
        await _left(request.receive)
        gone = True
        here.cancel()

    leaving = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        # Where somebody else cancelled this task too, it goes on to end.
        if gone and here.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
