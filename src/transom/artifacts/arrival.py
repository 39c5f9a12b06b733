"""Artifacts on their way in: received, checked and sealed, beside the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from transom.artifacts.content import Located, check
from transom.errors import PayloadTooLarge, QuotaExceeded, StorageError
from transom.storage.blocks import Sealed, Sealing

_AT_ONCE = 1 << 20
"""Bytes that are hashed and sealed together, in a thread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be kept, in bytes."""

    each: int
    """Of one artifact."""
    total: int
    """Of all artifacts of a project."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An artifact that may be kept, sealed in a file of its own."""

    file: Path
    sealed: Sealed
    sha256: str
    tensors: dict[str, Located]

    def blocks(self) -> Iterator[bytes]:
        """The sealed bytes, in pieces."""
        with self.file.open("rb") as file:
            while block := file.read(_AT_ONCE):
                yield block


class Arrivals:
    """Takes in what is uploaded.

    Args:
        folder: of files that nobody misses: it is emptied when a server starts.
        limits: for all of them.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self._folder = folder
        self._arriving: Counter[str] = Counter()
        """Bytes on their way in, by project: none fills the disk by many uploads at once."""

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A file for one upload, gone afterwards."""
        file = Path(NamedTemporaryFile(dir=self._folder, prefix="artifact-", delete=False).name)  # noqa: SIM115
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    async def receive(self, project_id: str, stream: AsyncIterator[bytes], file: Path) -> Arrived:
        """Take in all of a stream.

        Args:
            project_id: whose it will be.
            stream: the content.
            file: where it goes, sealed.

        Raises:
            PayloadTooLarge: it is larger than an artifact may be.
            QuotaExceeded: the project would have too much.
            InvalidRequest: it is no artifact.
            StorageError: there is no room for it.
        """
        try:
            with file.open("wb") as opened:
                sealing = Sealing(opened)
                async with aclosing(self._counted(project_id, stream)) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(sealing.take, piece)
                digest = await asyncio.to_thread(sealing.end)
        except OSError as error:
            raise StorageError(f"The artifact could not be received: {error.strerror}") from error
        sealed = Sealed(sealing.key, sealing.size, partial(_read, file))
        return Arrived(file, sealed, digest, await asyncio.to_thread(check, sealed.read, sealed.size))

    async def _counted(self, project_id: str, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The stream in pieces, as long as neither it nor all that arrive for the project are too large."""
        size = 0
        try:
            async for piece in _in_pieces(stream):
                size += len(piece)
                self._arriving[project_id] += len(piece)
                self.check(size, self._arriving[project_id])
                yield piece
        finally:
            self._arriving[project_id] -= size
            if not self._arriving[project_id]:
                del self._arriving[project_id]

    def check(self, size: int, total: int) -> None:
        """Pass an artifact of a size, which makes a total for its project.

        Raises:
            PayloadTooLarge, QuotaExceeded: see `receive`.
        """
        if size > self.limits.each:
            raise PayloadTooLarge(
                f"The artifact is larger than {self.limits.each} bytes; upload its tensors as several, or "
                "in a smaller type.",
                code="artifact_too_large",
            )
        if total > self.limits.total:
            raise QuotaExceeded(
                f"The project's artifacts would take {total} bytes, and {self.limits.total} are kept; delete "
                "some that are no longer needed."
            )


async def _in_pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, in pieces that are worth a thread."""
    left = bytearray()
    async for chunk in stream:
        left += chunk
        if len(left) >= _AT_ONCE:
            yield bytes(left)
            left.clear()
    if left:
        yield bytes(left)


def _read(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(length)
