"""What happens to every request on its way: it is counted, and some are turned away before they are read.

That is, all but a few while the server drains; and any that carries a secret in its address, which proxies,
logs and browsers' histories keep.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transom.access.credentials.keys import holds_secret
from transom.access.keys.callers import Caller
from transom.api.errors import response_of
from transom.api.metrics import Metrics
from transom.errors import EngineUnavailable, InvalidRequest, TransomError
from transom.schema.record import rfc3339
from transom.services.house import House

_BELOW_A_MODEL = "/models/{name}"

_STILL_ANSWERED = ("/health", "/ready", "/metrics")
"""Paths for whoever watches the server go."""

GONE = 499
"""What nginx logs when a client has left before it was answered."""


class Passage:
    """ASGI middleware around the whole application."""

    def __init__(self, inner: ASGIApp, app: FastAPI, metrics: Metrics) -> None:
        self._inner = inner
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        status = GONE

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = self._added(scope)
                if added:
                    message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self._answer(scope, receive, note)
        except Exception:
            # The handler of surprises stands further out, and answers it.
            status = 500 if status == GONE else status
            raise
        finally:
            self._metrics.answered(_endpoint(scope), status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await response_of(refusal)(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    def _refusal(self, scope: Scope) -> TransomError | None:
        if self._draining and scope["path"] not in _STILL_ANSWERED:
            return EngineUnavailable("The server is shutting down; ask again in a moment.")
        if holds_secret(scope["path"].encode(errors="replace")) or holds_secret(
            unquote_to_bytes(scope["query_string"])
        ):
            return InvalidRequest(
                "There is a key, a session or a link's token in this address. Send it as "
                "`Authorization: Bearer …`, or in the body; this one is compromised now: revoke it.",
                code="secret_in_url",
            )
        return None

    def _added(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Headers that have nothing to do with the answer."""
        added = [(b"connection", b"close")] if self._draining else []
        caller: Caller | None = scope.get("state", {}).get("caller")
        if caller is not None and caller.retires is not None:
            added.append((b"x-transom-key-retires", rfc3339(caller.retires).encode()))
        return added

    @property
    def _draining(self) -> bool:
        house: House = self._app.state.house
        return house.draining


def _endpoint(scope: Scope) -> str:
    """The path as the API's description has it, so that what people type makes no new label."""
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return "other"
    # A route knows its path from the router that it stands in; what is before it is taken from the request.
    before = scope["path"].split("/")[1 : -template.count("/")]
    if "name" in scope.get("path_params", {}) and template.count("/") < scope["path"].count("/"):
        before = before[2:]
    return "/".join(["", *before]) + template.removeprefix(_BELOW_A_MODEL)
