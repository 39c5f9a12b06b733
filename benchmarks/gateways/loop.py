"""Closed loops of requests on connections that stay open, read as cheaply as Python can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import httptools

from benchmarks.load.wire import Address


@dataclass(slots=True)
class Tally:
    """What came of a number of requests."""

    seconds: list[float] = field(default_factory=list)
    """Of each request that was answered well, from its first byte to the last of its reply."""
    events: int = 0
    """Events of streams, `[DONE]` left out."""
    problems: list[str] = field(default_factory=list)


class Talk(asyncio.Protocol):
    """One connection: asks, and asks again as soon as it is answered, while there is something to ask."""

    def __init__(self, requests: Iterable[bytes], tally: Tally) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._began = 0.0
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a reply."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"the reply is not HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Note the reply and ask again."""
        seconds, body = perf_counter() - self._began, b"".join(self._parts)
        status = self._parser.get_status_code()
        if status != 200 or b'"error"' in body:
            self._tally.problems.append(f"status {status}: {body[:200].decode(errors='replace')}")
        else:
            self._tally.seconds.append(seconds)
            self._tally.events += body.count(b"data: {")
        self._parser = httptools.HttpResponseParser(self)
        # Not from within the parser that has just been left.
        asyncio.get_running_loop().call_soon(self._ask)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever has not come by now does not come."""
        self._end(f"the connection was closed: {exc}")

    def _ask(self) -> None:
        request = next(iter(self._requests), None)
        if request is None:
            self._end(None)
            return
        self._parts = []
        self._began = perf_counter()
        self._transport.write(request)

    def _end(self, problem: str | None) -> None:
        if self.done.done():
            return
        if problem is not None:
            self._tally.problems.append(problem)
        self.done.set_result(None)
        self._transport.abort()


async def converse(address: Address, request: bytes, count: int, concurrency: int) -> tuple[Tally, float]:
    """Send a request `count` times, over `concurrency` connections.

    Returns:
        What came of it, and the seconds from the first request to the last reply.

    Raises:
        OSError: no connection.
    """
    tally, left = Tally(), iter([request] * count)
    loop, began = asyncio.get_running_loop(), perf_counter()
    talks = [
        (await loop.create_connection(lambda: Talk(left, tally), address.host, address.port))[1]
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(talk.done for talk in talks))
    return tally, perf_counter() - began
