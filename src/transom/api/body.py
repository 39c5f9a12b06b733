"""Reading a request body strictly, before FastAPI hands it to a model."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pydantic_core
from fastapi import Request, Response
from fastapi.routing import APIRoute

from transom.api.dependencies import caller_of
from transom.errors import InvalidRequest, PayloadTooLarge

MAX_BODY_BYTES = 8 << 20

_JSON = "application/json"


class JsonRequest(Request):
    """A request whose body is JSON as RFC 8259 has it: UTF-8, no NaN, and not deeper than the stack."""

    most_bytes: int = MAX_BODY_BYTES

    async def body(self) -> bytes:
        """The whole body, up to `most_bytes`; a longer one is not read to its end."""
        if not hasattr(self, "_body"):
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > self.most_bytes:
                    raise _too_large(self.most_bytes)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:  # noqa: ANN401
        """The parsed body."""
        if not hasattr(self, "_json"):
            try:
                self._json = pydantic_core.from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise InvalidRequest(f"The body is not JSON: {error}.", code="invalid_json") from error
        return self._json


class JsonRoute(APIRoute):
    """A route that reads its body as a `JsonRequest`, once whoever sends it has been let in."""

    most_bytes: ClassVar[int] = MAX_BODY_BYTES

    async def admit(self, request: Request) -> None:
        """Raise for those whose body is not even read: here, whoever has no key."""
        await caller_of(request)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind the checks of the body."""
        inner = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            strict = JsonRequest(request.scope, request.receive)
            strict.most_bytes = self.most_bytes
            if takes_body:
                # Nobody's body is read before their key is.
                await self.admit(strict)
                await _check_body(strict)
            return await inner(strict)

        return handle


def _too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {most_bytes} bytes; send less at once.")


async def _check_body(request: JsonRequest) -> None:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > request.most_bytes:
        raise _too_large(request.most_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise InvalidRequest(
            f"The content type is {kind[:60] or 'missing'}; send the body as application/json.",
            param="content-type",
            code="unsupported_media_type",
        )
    if not await request.body():
        raise InvalidRequest("The body is empty; send a JSON object.", code="invalid_json")
    # Here and not where FastAPI asks for it: it would answer in its own words.
    await request.json()
