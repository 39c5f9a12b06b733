"""`POST /add-checkpoint`: a witness, for the logs that it follows (https://c2sp.org/tlog-witness)."""

from __future__ import annotations

import asyncio

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from transom.errors import LogBroken
from transom.tlog.submissions import MOST_BYTES, PATH, SIZE_TYPE, spell_signatures, spell_size
from transom.tlog.witness import Refusal, Refused, Witness

log = structlog.get_logger()

_STATUS = {
    Refusal.MALFORMED: 400,
    Refusal.NOT_SIGNED: 403,
    Refusal.UNKNOWN_LOG: 404,
    Refusal.CONFLICT: 409,
    Refusal.NOT_GROWN: 422,
}

_BODY_SECONDS = 10.0
"""How long a body may take to arrive: it is a few kilobytes."""


def create_witness(witness: Witness) -> Starlette:
    """The ASGI application of a witness."""

    async def add_checkpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                content = await _body(request)
        except TimeoutError:
            return _text(408, f"a body arrives within {_BODY_SECONDS:.0f} seconds")
        if content is None:
            return _text(413, f"a submission has no more than {MOST_BYTES} bytes")
        try:
            # Kept on disk before it is signed: beside the event loop.
            answer = await asyncio.to_thread(witness.add_checkpoint, content)
        except (OSError, LogBroken) as error:
            log.error("nothing was cosigned", reason=str(error), exc_info=error)
            return _text(500, "this witness cannot keep what it sees, and so does not cosign it")
        if not isinstance(answer, Refused):
            return PlainTextResponse(spell_signatures([answer]))
        log.warning("not cosigned", reason=answer.reason.value, message=answer.message)
        if answer.reason is Refusal.CONFLICT:
            # Of the same size with another root too: that it is the size which was sent says which.
            return Response(spell_size(answer.size), 409, {"content-type": SIZE_TYPE})
        return _text(_STATUS[answer.reason], answer.message)

    witnessing = Starlette(routes=[Route(f"/{PATH}", add_checkpoint, methods=["POST"])])
    witnessing.router.redirect_slashes = False
    return witnessing


async def _body(request: Request) -> bytes | None:
    """What was sent; None where it is too much, whose rest is not read."""
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                return None
    except ClientDisconnect:
        return b""
    return bytes(content)


def _text(status: int, message: str) -> Response:
    return PlainTextResponse(f"{message}\n", status)
