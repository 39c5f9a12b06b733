"""Reading a request body strictly, before FastAPI hands it to a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pydantic_core
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from transom.api import dependencies
from transom.api.dependencies import caller_of, get_house, model_in_path, refuse_query
from transom.api.errors import from_validation
from transom.errors import InvalidRequest, PayloadTooLarge

MAX_BODY_BYTES = 8 << 20

LARGE_BODY_BYTES = 256 << 10
"""From here on a body is checked beside the event loop: others would notice how long it takes."""

_JSON = "application/json"


class JsonRequest(Request):
    """A request whose body is JSON as RFC 8259 has it: UTF-8, no NaN, and not deeper than the stack."""

    most_bytes: int = MAX_BODY_BYTES

    async def body(self) -> bytes:
        """The whole body, up to `most_bytes`; a longer one is not read to its end."""
        if not hasattr(self, "_body"):
            # What Starlette's stream does, without a generator: most bodies come in one message.
            chunks, size, more = [], 0, True
            while more:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > self.most_bytes:
                    raise _too_large(self.most_bytes)
                chunks.append(chunk)
                more = message.get("more_body", False)
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


Asked = Callable[..., Coroutine[Any, Any, Response]]
"""An endpoint that takes (request, house, caller, name of the model in the path, body, raw body)."""


class AskRoute(APIRoute):
    """A route of the busiest kind: it is called by hand, and FastAPI only describes it.

    FastAPI solves the dependencies of each request anew, which costs several times what they do.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `asked`."""
        assert self.body_field is not None  # noqa: S101  # what is asked comes in a body
        model: Any = self.body_field.field_info.annotation
        return asked(self.endpoint, model)


def asked(endpoint: Asked, model: type[BaseModel]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """A handler that checks key, path, body and query in this order, and calls `endpoint`."""

    async def handle(request: Request) -> Response:
        strict = JsonRequest(request.scope, request.receive)
        house, caller, name = get_house(strict), await caller_of(strict), model_in_path(strict)
        await _check_body(strict)
        if name is not None:
            house.backend(name)
        refuse_query(strict)
        raw = await strict.json()
        try:
            if len(await strict.body()) < LARGE_BODY_BYTES:
                body = model.model_validate(raw)
            else:
                body = await asyncio.to_thread(model.model_validate, raw)
        except ValidationError as error:
            raise from_validation(error.errors()) from None
        return await endpoint(strict, house, caller, name, body, raw)

    return handle


class JsonRoute(APIRoute):
    """A route that reads its body as a `JsonRequest`, once whoever sends it has been let in."""

    most_bytes: ClassVar[int] = MAX_BODY_BYTES

    async def admit(self, request: Request) -> object:
        """Raises for those whose body is not even read."""
        return await dependencies.caller_of(request)

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


class PersonRoute(JsonRoute):
    """The same, for people who are signed in, and not for keys."""

    most_bytes = 1 << 20

    async def admit(self, request: Request) -> object:
        """Refuse who has not signed in."""
        return await dependencies.person_of(request)


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
