"""The folder of results: room on its disk, asked for before a plan runs, and results that wait to be fetched.

What is there does not outlive the server. A result that is gone comes back, to the bit, when its plan is
carried out again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from transom.errors import EngineBusy, InvalidRequest, NotFound, QuotaExceeded
from transom.schema.program import FilePart

KEPT_FOR = timedelta(hours=1)
"""How long a result can be fetched."""

MAX_KEPT_BYTES = 16 << 30
"""Most bytes of results that are kept for one project at once."""

_GRACE = timedelta(minutes=1)
"""How long a file outlives its time, for those who have just asked for it."""

_SHARE = 2
"""All plans together may fill one part in so many of the disk that is free."""

_WAIT_FOR_ROOM = 60
"""Seconds after which other plans may have given theirs back."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that can be fetched."""

    record_id: str
    project_id: str
    scopes: tuple[str, ...]
    """What the plan needed, and who fetches it needs."""
    file: Path
    parts: tuple[FilePart, ...]
    expires: datetime

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return sum(part.bytes for part in self.parts)


class Spool:
    """Results on their way, or kept.

    Args:
        folder: of their files.
        now: the time, in UTC.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self.folder = folder
        self._now = now
        self._kept: dict[str, Kept] = {}
        self._held = 0
        """Bytes that plans which run may put on the disk."""
        self._coming: dict[str, int] = {}
        """Bytes of results that will be kept, by project."""

    def file_of(self, name: str) -> Path:
        """Where the result of a plan is put."""
        return self.folder / f"{name}.safetensors"

    def brought_file_of(self, name: str) -> Path:
        """Where the tensors of artifacts are put that a plan takes."""
        return self.folder / f"{name}.tensors"

    def clear(self) -> None:
        """Delete what a server left behind that ended."""
        for left in self.folder.iterdir():
            left.unlink()

    def remove(self, name: str) -> None:
        """Delete the result of a plan, as far as it is there."""
        file = self.file_of(name)
        file.unlink(missing_ok=True)
        # An engine that died while it wrote has left this; one that still writes finds it gone.
        file.with_suffix(".partial").unlink(missing_ok=True)

    @contextmanager
    def room(self, project: str, spilled: int, returned: int, *, keeps: bool = False) -> Iterator[None]:
        """Room for one plan while it runs.

        Args:
            project: whose plan it is.
            spilled: bytes of what it reads, and of artifacts that it takes, on disk.
            returned: bytes of its result.
            keeps: whether the result will be kept.

        Raises:
            InvalidRequest: it is too much for this disk.
            EngineBusy: it is too much beside what others have taken.
            QuotaExceeded: it is too much beside what the project keeps.
        """
        self._check_disk(spilled + returned)
        if keeps:
            self._check_kept(project, returned)
        coming = returned * keeps
        self._held += spilled + returned
        self._coming[project] = self._coming.get(project, 0) + coming
        try:
            yield
        finally:
            self._held -= spilled + returned
            left = self._coming.pop(project, 0) - coming
            if left:
                self._coming[project] = left

    def keep(self, kept: Kept) -> None:
        """Keep a result until its time is over."""
        self._kept[kept.record_id] = kept

    def expiry(self) -> datetime:
        """Until when what is kept now is kept."""
        return self._now() + KEPT_FOR

    def find(self, record_id: str, project: str) -> Kept:
        """A result that is kept.

        Raises:
            NotFound: there is none of that name, its time is over, or it is another project's.
        """
        kept = self._kept.get(record_id)
        if kept is None or kept.project_id != project or kept.expires <= self._now():
            raise NotFound(
                "No such result is kept. Results with format parts are kept for an hour, and not beyond a "
                "restart of the server; carry the plan out again, it gives the same bytes.",
                param="id",
            )
        return kept

    def discard(self, kept: Kept) -> None:
        """Delete a result before its time."""
        if self._kept.pop(kept.record_id, None) is not None:
            self.remove(kept.record_id)

    def sweep(self) -> None:
        """Delete results whose time is over."""
        for kept in list(self._kept.values()):
            if kept.expires + _GRACE <= self._now():
                self.discard(kept)

    def _check_disk(self, wanted: int) -> None:
        most = shutil.disk_usage(self.folder).free // _SHARE
        if wanted > most:
            raise InvalidRequest(
                f"The plan would put up to {wanted} bytes on the server's disk; it has room for {most}. "
                "Read fewer positions, layers or units, reduce them, or send several plans.",
                param="runs",
                code="plan_too_large",
            )
        if wanted + self._held > most:
            raise EngineBusy(
                f"The plan would put up to {wanted} bytes on the server's disk; other plans have taken "
                f"{self._held} of {most}. Ask again in a moment.",
                retry_after=_WAIT_FOR_ROOM,
            )

    def _check_kept(self, project: str, wanted: int) -> None:
        own = sorted(
            (kept for kept in self._kept.values() if kept.project_id == project),
            key=lambda kept: kept.expires,
        )
        total = sum(kept.bytes for kept in own) + self._coming.get(project, 0)
        if total + wanted <= MAX_KEPT_BYTES:
            return
        raise QuotaExceeded(
            f"The project's results that are kept take {total} bytes, and this one up to {wanted} more; "
            f"{MAX_KEPT_BYTES} are kept. Fetch them, and DELETE those that are fetched.",
            retry_after=self._wait(own, total + wanted - MAX_KEPT_BYTES),
        )

    def _wait(self, own: list[Kept], excess: int) -> int:
        """Seconds until so many bytes are given back by results whose time is over, the first one first."""
        for kept in own:
            excess -= kept.bytes
            if excess <= 0:
                return 1 + math.ceil((kept.expires - self._now()).total_seconds())
        return _WAIT_FOR_ROOM
