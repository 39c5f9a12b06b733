"""Server-sent events, framed as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from typing import Any

import orjson
import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from transom.api.errors import body_of
from transom.api.rate_limits import headers_of
from transom.errors import TransomError
from transom.services.answering.generation import Generation

log = structlog.get_logger()

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


TEXT = "\0text\0"
"""Stands in a `Frame` where the text goes."""


class Frame:
    """The events of a stream that differ in their text alone, of which most streams are made.

    Args:
        data: an event with `TEXT` as the value that differs.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._before, _, self._after = event(data).partition(orjson.dumps(TEXT))

    def event(self, text: str) -> bytes:
        """The event with that text: the bytes that `event` makes of it."""
        return self._before + orjson.dumps(text) + self._after


def error_event(error: TransomError) -> bytes:
    """An error after the status line has gone out."""
    return b"event: error\n" + event(body_of(error))


def stream(events: AsyncGenerator[bytes, None], generation: Generation) -> StreamingResponse:
    """A reply that streams `generation` as `events`. It ends with `[DONE]`, after an error too."""

    async def framed() -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(events):
                async for data in events:
                    yield data
        except TransomError as error:
            yield error_event(error)
        except Exception as error:  # the client must not take a broken stream for a whole one
            log.error("stream failed", exc_info=error)
            yield error_event(TransomError("The server met an error that it did not expect."))
        yield DONE

    headers = {
        "x-transom-record": generation.record_id,
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    } | headers_of(generation.meter.standings)
    return _Stream(generation, framed(), headers=headers)


class _Stream(StreamingResponse):
    """Closes its events and its generation at the end, whether the client read all of them, some, or none."""

    media_type = "text/event-stream"

    def __init__(
        self, generation: Generation, events: AsyncGenerator[bytes, None], headers: dict[str, str]
    ) -> None:
        super().__init__(events, headers=headers)
        self._generation = generation
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette leaves the events to the garbage collector, and with them the record.
        with closing(self._generation):
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
