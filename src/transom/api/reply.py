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
from transom.api.rate_limits import headers_of
from transom.errors import EngineError, PlanFailed
from transom.services.answering.generation import Generation

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]

WATCH_AFTER_SECONDS = 0.05
"""How long an answer may take before the server looks whether its client is still there."""


async def whole(request: Request, generation: Generation, build: Callable[[], dict[str, Any]]) -> Response:
    """Run `generation`, and answer with what `build` makes of it; a client that leaves aborts it."""
    try:
        with closing(generation):
            await while_present(request, generation.run())
    except (EngineError, PlanFailed) as error:
        response = response_of(error)
        response.headers.update(_headers(generation))
    else:
        # All at once: to set a header of a response is to look through those that it has.
        response = Response(
            orjson.dumps(build()), headers=_headers(generation), media_type="application/json"
        )
    return response


def _headers(generation: Generation) -> dict[str, str]:
    return {"x-transom-record": generation.record_id} | headers_of(generation.meter.standings)


async def while_present(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns; cancels it, and raises ClientDisconnect, when the client leaves first."""
    here, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert here is not None  # noqa: S101  # a coroutine runs in a task
    gone = False
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        await _left(request.receive)
        gone = True
        here.cancel()

    def start() -> None:
        nonlocal watching
        watching = loop.create_task(watch())

    # Most answers are there sooner, and need nobody to watch.
    starting = loop.call_later(WATCH_AFTER_SECONDS, start)
    try:
        return await work
    except asyncio.CancelledError:
        # Where somebody else cancelled this task too, it goes on to end.
        if gone and here.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        starting.cancel()
        if watching is not None:
            watching.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
