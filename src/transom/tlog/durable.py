"""Files that are there whole, and still after the power went: of logs, of copies, of witnesses."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

Step: TypeAlias = Callable[[str], object]
"""Told the name of each step before it is taken; for tests that break it there."""

_LOCK = ".lock"
_PART = ".part"


def no_step(_name: str) -> None:
    """Nobody is told."""


def lock_folder(folder: Path) -> int:
    """Be the only one to write into a folder, which is made where there is none; close what it returns.

    The lock goes with the process, however that ends.

    Raises:
        BlockingIOError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Holder:
    """Is the only one to write into a folder until it is closed, as `with` does; takes `_lock` when made."""

    _lock: int
    """Of `lock_folder`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another write into the folder."""
        os.close(self._lock)


def write_file(target: Path, content: bytes, name: str, step: Step = no_step) -> None:
    """Put a file in its place, whole. Its name is durable once its folder is synced."""
    part = target.with_name(f".{target.name}{_PART}")
    step(f"write {name}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        step(f"sync {name}")
        os.fsync(descriptor)
    step(f"name {name}")
    part.replace(target)


def replace_file(target: Path, content: bytes, step: Step = no_step) -> None:
    """Put a file in the place of an older one, durably: at every moment one of both is there, whole."""
    write_file(target, content, target.name, step)
    step(f"sync folder of {target.name}")
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which files are in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
