"""An OpenAI-compatible upstream that answers at once, as cheaply as Python can: `python -m … --port 8901`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import cast

import httptools

from benchmarks.gateways.answers import MODEL, PAUSE, events, whole
from benchmarks.load.command import run


def _reply(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_WHOLE = _reply(whole())
_MODELS = _reply(b'{"object": "list", "data": [{"id": "%b", "object": "model"}]}' % MODEL.encode())
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STREAM = [b"%x\r\n%b\r\n" % (len(event), event) for event in events()]


class Upstream(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._url = b""
        self._transport: asyncio.Transport
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """A request begins."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """Keep a part of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer it."""
        if self._url.endswith(b"/models"):
            self._transport.write(_MODELS)
        elif b'"stream":true' in self._body.replace(b" ", b""):
            self._streaming = asyncio.ensure_future(self._stream())
        else:
            self._transport.write(_WHOLE)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop talking to nobody."""
        if self._streaming is not None:
            self._streaming.cancel()

    async def _stream(self) -> None:
        self._transport.write(_STREAM_HEAD)
        for event in _STREAM:
            self._transport.write(event)
            await asyncio.sleep(PAUSE)
        self._transport.write(b"0\r\n\r\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    run(_serve(parser.parse_args(arguments).port))


if __name__ == "__main__":
    main(sys.argv[1:])
