"""Replies that end: for who asks a server that may want to hold them up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx2

from transom.client.failures import ServerUnreachable, UnexpectedReply

MOST_BYTES = 64 << 20
"""Of a whole reply."""


def bounding(seconds: float) -> Callable[[httpx2.Response], None]:
    """An event hook of an HTTP client: a body has to be there after `seconds`, however it arrives.

    A packed reply is refused: nothing says how large it is before it is unpacked.
    """

    def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise UnexpectedReply(f"{response.url} answered with a packed body, which was not asked for.")
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Bounded(response.stream, str(response.url), seconds)

    return bound


class _Bounded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, url: str, seconds: float) -> None:
        self._stream = stream
        self._url = url
        self._seconds = seconds

    def __iter__(self) -> Iterator[bytes]:
        deadline, size = time.monotonic() + self._seconds, 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MOST_BYTES:
                raise UnexpectedReply(f"{self._url} is longer than {MOST_BYTES} bytes.")
            if time.monotonic() > deadline:
                raise ServerUnreachable(f"{self._url} did not arrive within {self._seconds:.0f} seconds.")
            yield chunk

    def close(self) -> None:
        self._stream.close()
