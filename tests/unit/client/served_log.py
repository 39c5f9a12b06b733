"""A log in a folder, as a server shows it: with what else a monitor asks a server."""

from __future__ import annotations

import httpx2

from tests.unit.tlog.growing import LOG
from transom.schema.canonical import sha256
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles
from transom.tlog.writer import LogWriter

DEPLOYMENT = sha256(b"deployment")


def digest(number: int) -> str:
    return sha256(b"record %d" % number)


def entries(start: int, end: int, history: str = "") -> list[bytes]:
    """Entries of records."""
    return [Entry("record", sha256(b"record %d" % n + history.encode())).content for n in range(start, end)]


class ServedLog:
    """Answers requests out of the folder that it shows now."""

    def __init__(self, folder, prefix="/log") -> None:
        self.folder = folder
        self.prefix = prefix
        self.paths: list[str] = []
        self.replies: dict[str, object] = {}
        """By path: JSON, or a response."""

    def grow(self, end: int, history: str = "", folder=None) -> None:
        with LogWriter(folder or self.folder, LOG) as log:
            log.append(entries(log.size, end, history))

    def add(self, *more: bytes) -> None:
        with LogWriter(self.folder, LOG) as log:
            log.append(more)

    @property
    def files(self) -> LogFiles:
        return LogFiles(self.folder, LOG.verifier)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.paths.append(path)
        if path in self.replies:
            reply = self.replies[path]
            if callable(reply):
                return reply(request)
            return httpx2.Response(200, json=reply)
        target = self.folder / path.removeprefix(self.prefix + "/")
        if path.startswith(self.prefix + "/") and target.is_file():
            return httpx2.Response(200, content=target.read_bytes())
        return httpx2.Response(404, text="nothing")

    @property
    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self)
