"""Files of secrets beside the database: for their owner's eyes only, and never half written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from transom.errors import ConfigurationError

T = TypeVar("T")


class Watched(Generic[T]):
    """What is in a file, read again once it is another one: the command line changes it under a server.

    Args:
        path: the file, which is only ever replaced.
        read: makes of it what is wanted; what it raises is raised.
    """

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self._path = path
        self._read = read
        # Marked before it is read: what is put there in between is read the next time.
        self._seen = self._mark()
        self._known = read(path)

    def latest(self) -> T:
        """As it is now. A file that is gone leaves what was known."""
        try:
            mark = self._mark()
        except FileNotFoundError:
            return self._known
        if mark != self._seen:
            self._known, self._seen = self._read(self._path), mark
        return self._known

    def _mark(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns


def read_secret(path: Path) -> bytes:
    """What is in the file.

    Raises:
        FileNotFoundError: there is none.
        ConfigurationError: others can read it.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ConfigurationError(
                f"{path} can be read by others: chmod 600 it, and consider its secrets known."
            )
        return file.read()


def create_secret(path: Path, content: bytes) -> None:
    """Make the file; where somebody else was first, theirs stays.

    Written under a name of its own and then linked: nobody sees half a file.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path} cannot be made, for its folder is not there; make it first.")
    draft = _draft(path, content)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return  # its secrets are the ones in use
    finally:
        draft.unlink()
    _sync_folder(path)


def replace_secret(path: Path, content: bytes) -> None:
    """Put new content in the place of the old: at every moment one of both is there, whole."""
    draft = _draft(path, content)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
    _sync_folder(path)


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink()
        raise
    return draft


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
