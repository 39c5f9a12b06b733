"""A log that is read over HTTP: a server's, a mirror's, or anybody's in the form of tlog-tiles."""

from __future__ import annotations

import time

import httpx2

from transom.client.connection import Connection
from transom.client.failures import ServerUnreachable, UnexpectedReply, reaching
from transom.tlog.files import CHECKPOINT, LogReader
from transom.tlog.notes import MOST_BYTES, VerifierKey
from transom.tlog.tiles import MOST_ENTRY_BYTES, WIDTH

_TIMEOUT = httpx2.Timeout(30, connect=5)

_SECONDS = 120.0
"""How long one file may take, all in all: who lets bytes trickle must not hold up who watches."""

_NOT_THERE = {403, 404, 410}
"""Stores of objects forbid what is not there."""

_MOST_BUNDLE = WIDTH * (2 + MOST_ENTRY_BYTES)


class RemoteLog(LogReader):
    """The files of a log below a prefix.

    Args:
        key: of the log.
        url: of a Transom server, or the prefix of a log: below it is `log/checkpoint`, or else `checkpoint`.
        transport: in the place of the network, for tests.
    """

    def __init__(self, key: VerifierKey, url: str, transport: httpx2.BaseTransport | None = None) -> None:
        super().__init__(key)
        # Whatever key is in the environment is no business of who serves a log.
        connection = Connection.find(url, api_key="")
        self.url = connection.base_url
        self._http = httpx2.Client(transport=transport, **connection.options(_TIMEOUT))
        self._prefix: str | None = None

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def file(self, path: str) -> bytes | None:
        """The file at a path below the log's prefix; None where there is none.

        Raises:
            ServerUnreachable: nobody is there.
            UnexpectedReply: what answers gives something else, or too much.
        """
        if self._prefix is None:
            for prefix in ("/log", ""):
                if self._get(f"{prefix}/{CHECKPOINT}") is not None:
                    self._prefix = prefix
                    break
            else:
                return None
        return self._get(f"{self._prefix}/{path}")

    def _get(self, path: str) -> bytes | None:
        most = _MOST_BUNDLE if "/entries/" in path else MOST_BYTES
        deadline, body = time.monotonic() + _SECONDS, bytearray()
        headers = {"cache-control": "no-cache"} if path.endswith(CHECKPOINT) else {}
        with reaching(self.url), self._http.stream("GET", path, headers=headers) as response:
            if response.status_code in _NOT_THERE:
                return None
            if response.status_code != 200:
                raise UnexpectedReply(f"{self.url}{path} answered {response.status_code}. Check the address.")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most:
                    raise UnexpectedReply(f"{self.url}{path} is longer than {most} bytes.")
                if time.monotonic() > deadline:
                    raise ServerUnreachable(f"{self.url}{path} did not arrive within {_SECONDS:.0f} seconds.")
        return bytes(body)
