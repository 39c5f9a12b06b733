"""Server-sent events, framed as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from starlette.responses import StreamingResponse

from transom.api.errors import body_of
from transom.errors import TransomError

log = structlog.get_logger()

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(error: TransomError) -> bytes:
    """An error after the status line has gone out."""
    return b"event: error\n" + event(body_of(error))


def stream(events: AsyncGenerator[bytes, None], record_id: str) -> StreamingResponse:
    """A reply that is a stream. It ends with `[DONE]`, after an error too."""

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

    headers = {"x-transom-record": record_id, "cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(framed(), media_type="text/event-stream", headers=headers)
