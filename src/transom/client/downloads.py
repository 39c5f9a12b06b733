"""Fetching a large result: which bytes are wanted next, whether those that came are right, and where they go.

Nothing here touches the network, as in `transom.client.operations`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Self

import httpx2
import numpy as np

from transom.client.failures import ServerUnreachable, UnexpectedReply
from transom.errors import InvalidRequest, TransomError
from transom.schema.manifest import ListedPart, Manifest

ATTEMPTS = 6
"""Broken connections in a row that bring nothing, after which a download is given up."""

_FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""

_LARGE = 1 << 20
"""Bytes from which on a body is put where it stays."""


class Large:
    """A large body, in memory once.

    Args:
        size: of it, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.content = np.empty(size, np.uint8).data  # a bytearray would be zeroed first
        self._at = 0

    @classmethod
    def expected(cls, response: httpx2.Response) -> Self | None:
        """Room for a body that is large and comes as it is; None for any other."""
        said = response.headers.get("content-length", "")
        if not response.is_success or not said.isdecimal() or "content-encoding" in response.headers:
            return None
        return cls(int(said)) if int(said) >= _LARGE else None

    def take(self, chunk: bytes) -> None:
        """Keep what comes next."""
        end = self._at + len(chunk)
        self.content[self._at : end] = chunk
        self._at = end


class Download:
    """The file of one result on its way.

    Args:
        manifest: of the result.
        file: that it is written to, from its beginning; it can be read back and cut.
    """

    def __init__(self, manifest: Manifest, file: BinaryIO) -> None:
        self._size = manifest.file.bytes
        self._parts = _in_order(manifest)
        self._index = 0
        """Of the part that is being fetched."""
        self._at = 0
        self._digest = sha256()
        self._farthest = 0
        self._failures = 0
        self._file = file

    @property
    def is_done(self) -> bool:
        """Whether all of it is there, and right."""
        return self._index == len(self._parts)

    @property
    def headers(self) -> dict[str, str]:
        """Of a request for what is missing. A body that somebody on the way compresses has other offsets."""
        return {"range": f"bytes={self._at}-", "accept-encoding": "identity"}

    def begin(self, response: httpx2.Response) -> None:
        """Check that what comes is what was asked for; `response` has been read where it is an error.

        Raises:
            UnexpectedReply: it is not.
        """
        expected = f"bytes {self._at}-{self._size - 1}/{self._size}"
        if response.status_code != 206 or response.headers.get("content-range") != expected:
            raise UnexpectedReply(
                f"{response.url} does not answer with the range that was asked for. Check what lies between "
                "this client and the server."
            )

    def take(self, chunk: bytes) -> None:
        """Keep what came next.

        Raises:
            UnexpectedReply: there is more than there should be.
            ServerUnreachable: a part is not what the manifest says; it is fetched again.
        """
        left = memoryview(chunk)
        while left:
            if self.is_done:
                raise UnexpectedReply("The server sent more than its manifest says.")
            part = self._parts[self._index]
            fitting = left[: part.start + part.bytes - self._at]
            self._file.write(fitting)
            self._digest.update(fitting)
            self._at += len(fitting)
            left = left[len(fitting) :]
            if self._at > self._farthest:
                self._farthest, self._failures = self._at, 0
            if self._at == part.start + part.bytes:
                self._check(part)

    def end(self) -> None:
        """A reply has ended.

        Raises:
            ServerUnreachable: too early.
        """
        if not self.is_done:
            raise ServerUnreachable("The connection ended before the result did. Check your network.")

    def pause_after(self, broken: TransomError) -> float:
        """Seconds to wait before what is missing is asked for again.

        Raises:
            TransomError: `broken`, where it is no use.
        """
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise broken
        return math.ldexp(_FIRST_PAUSE, self._failures - 1)

    def _check(self, part: ListedPart) -> None:
        found, self._digest = self._digest.hexdigest(), sha256()
        if found != part.sha256:
            self._at = part.start
            self._file.seek(part.start)
            raise ServerUnreachable(
                f"Bytes {part.start} to {part.start + part.bytes} of the result did not arrive as they were "
                "sent. Check what lies between this client and the server."
            )
        self._index += 1


def _in_order(manifest: Manifest) -> tuple[ListedPart, ...]:
    """The parts of a file, none of them empty, that lie one behind the other.

    Raises:
        UnexpectedReply: they do not.
    """
    at = 0
    for part in manifest.parts:
        if part.start != at or not part.bytes:
            break
        at += part.bytes
    if at != manifest.file.bytes:
        raise UnexpectedReply("The parts of the result do not make up its file.")
    return manifest.parts


def opened(out: str | Path | None) -> AbstractContextManager[BinaryIO]:
    """A file to fetch into: one to keep, or one that is gone once nobody looks into it."""
    return _nameless() if out is None else replacing(Path(out))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole.

    Raises:
        InvalidRequest: nothing can be written there.
    """
    # Two commands that keep their results in one place do not write into each other's.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", param="out") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _nameless() -> Iterator[BinaryIO]:
    """A file that is gone once nobody looks into it.

    Raises:
        InvalidRequest: there is no room for it.
    """
    try:
        with TemporaryFile() as file:
            yield file
    except OSError as error:
        raise InvalidRequest(f"The result cannot be kept: {error.strerror}", param="out") from error
