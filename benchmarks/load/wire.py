"""One HTTP request on one connection, read as cheaply as Python can.

The load generator shares the cores with the server that it measures, so nothing is decoded while a reply
arrives: each part of the body is kept with the moment it came, and is read when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 10.0
"""How long a server may take to accept a connection."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server's OpenAI paths begin."""

    host: str
    port: int
    prefix: str
    """Path before `/completions`, such as `/v1`."""
    secure: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a base URL, such as `http://127.0.0.1:8600/v1`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the base URL of a server")
        secure = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/"), secure)

    @property
    def root(self) -> Address:
        """The same server without the prefix, for `/health` and `/version`."""
        return Address(self.host, self.port, "", self.secure)


@dataclass(slots=True)
class Reply:
    """What came back, and when. Moments are seconds of `time.perf_counter`."""

    started: float
    ended: float = 0.0
    status: int = 0
    parts: list[tuple[float, bytes]] = field(default_factory=list)
    complete: bool = False
    """Whether the body ended as HTTP says that it should."""
    problem: str | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(part for _, part in self.parts)

    @property
    def seconds(self) -> float:
        """From the beginning of the request to the end of the reply."""
        return self.ended - self.started

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


class Exchange(asyncio.Protocol):
    """Writes one request, collects its reply, and closes the connection."""

    def __init__(self, request: bytes, watch: Callable[[Exchange], None] | None = None) -> None:
        self.reply = Reply(perf_counter())
        self.transport: asyncio.Transport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._watch = watch
        self._now = 0.0
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # Transports of uvloop are asyncio's in all but descent.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the reply."""
        self._now = perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"the reply is not HTTP: {error}")

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.reply.parts.append((self._now, body))
        if self._watch is not None:
            self._watch(self)

    def on_message_complete(self) -> None:
        """The reply is whole."""
        self.reply.complete = True
        self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever has not come by now does not come."""
        self._finish(f"the connection broke: {exc}" if exc else "the connection was closed early")

    def hang_up(self) -> None:
        """Leave without a word, as a client does that is killed."""
        self._finish(None)

    def _finish(self, problem: str | None) -> None:
        if self.done.done():
            return
        self.reply.ended = perf_counter()
        self.reply.problem = problem
        self.done.set_result(None)
        self.transport.abort()


def encode_request(
    address: Address,
    method: str,
    path: str,
    payload: object | None = None,
    key: str | None = None,
    *,
    close: bool = True,
) -> bytes:
    """The bytes of a request; made before the clock starts."""
    body = b"" if payload is None else json.dumps(payload, separators=(",", ":")).encode()
    lines = [f"{method} {address.prefix}{path} HTTP/1.1", f"Host: {address.host}:{address.port}"]
    lines += [
        f"Connection: {'close' if close else 'keep-alive'}",
        "Accept: */*",
        f"Content-Length: {len(body)}",
    ]
    if payload is not None:
        lines.append("Content-Type: application/json")
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(
    address: Address,
    request: bytes,
    *,
    timeout: float = 600.0,  # noqa: ASYNC109
    watch: Callable[[Exchange], None] | None = None,
) -> Reply:
    """Send a request and wait for the whole reply. Never raises: what went wrong is in `problem`.

    Args:
        address: the server.
        request: bytes of `encode_request`.
        timeout: seconds that the reply may take.
        watch: called after each part of the body; may hang up or stop reading.
    """
    started, context = perf_counter(), ssl.create_default_context() if address.secure else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, protocol = await loop.create_connection(
                lambda: Exchange(request, watch), address.host, address.port, ssl=context
            )
    except (OSError, TimeoutError) as error:
        return Reply(started, perf_counter(), problem=f"no connection: {error}")
    protocol.reply.started = started
    try:
        async with asyncio.timeout(timeout):
            await protocol.done
    except TimeoutError:
        protocol.reply.ended = perf_counter()
        protocol.reply.problem = f"no end within {timeout:g} s"
    finally:
        transport.abort()
    return protocol.reply
