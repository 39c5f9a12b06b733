"""A bundle as a zip file or as a folder, opened with distrust: whoever made it may mean harm.

Nothing is ever unpacked, so no name in it can lead anywhere; files have the names of `layout` and no other.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from transom.client.bundle.layout import KINDS, MOST_FILES, kind_of
from transom.errors import InvalidRequest

_ROOM = 1 << 26
_MOST_TIMES = 20
"""What is packed may be so many times as large unpacked, or `_ROOM` bytes."""
_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """Its files: names and sizes, and a way to open each."""

    place: str
    sizes: Mapping[str, int]
    _open: Callable[[str], BinaryIO] = field(repr=False)

    def of_kind(self, kind: str) -> Iterator[tuple[str, str]]:
        """What each file of a kind belongs to, and its name; in order."""
        for name in sorted(self.sizes):
            found = kind_of(name)
            if found is not None and found[0] == kind:
                yield found[1], name

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file, to be read once from its beginning.

        Raises:
            InvalidRequest: it cannot be read.
        """
        try:
            with self._open(name) as file:
                yield file
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise InvalidRequest(f"{name} in {self.place} cannot be read: {error}") from None

    def read(self, name: str) -> bytes:
        """All of a file that is small enough for memory.

        Raises:
            InvalidRequest: it cannot be read.
        """
        with self.opened(name) as file:
            return file.read()

    def digest(self, name: str) -> str:
        """SHA-256 in hexadecimal, with little of the file in memory at a time."""
        digest = sha256()
        with self.opened(name) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether it is a folder or a zip file, and nothing else that can be verified."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """A bundle to read from.

    Raises:
        InvalidRequest: it is none, or one that nobody should open; says why.
    """
    if path.is_dir():
        yield Bundle(str(path), _folder_sizes(path), lambda name: (path / name).open("rb"))
        return
    with ExitStack() as stack:
        with _read(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            sizes = _zip_sizes(path, archive)

        def open_member(name: str) -> BinaryIO:
            with _read(path):
                return cast("BinaryIO", archive.open(name))

        with _read(path, (zipfile.BadZipFile, OSError)):
            yield Bundle(str(path), sizes, open_member)


_UNREADABLE = (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, struct.error)
"""What zipfile raises of a file that is not what it should be; a name that is no UTF-8 is a ValueError."""


@contextmanager
def _read(path: Path, errors: tuple[type[Exception], ...] = _UNREADABLE) -> Iterator[None]:
    """Any of these, as one clear error."""
    try:
        yield
    except errors as error:
        raise InvalidRequest(f"{path} is no zip file that can be read: {error}") from None


def _folder_sizes(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for place, folders, files in os.walk(folder):
        for each in (*folders, *files):
            path = Path(place) / each
            said = path.lstat()
            name = path.relative_to(folder).as_posix()
            if stat.S_ISLNK(said.st_mode) or not (stat.S_ISREG(said.st_mode) or stat.S_ISDIR(said.st_mode)):
                raise InvalidRequest(f"{name!r} in {folder} is a link, or no file; a bundle has files alone.")
            if stat.S_ISREG(said.st_mode):
                _take(sizes, name, said.st_size, str(folder))
    return sizes


def _zip_sizes(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    sizes: dict[str, int] = {}
    packed = 0
    for info in archive.infolist():
        _check_member(info, path)
        if info.is_dir():
            continue
        _take(sizes, info.filename, info.file_size, str(path))
        packed += info.compress_size
    whole = path.stat().st_size
    if packed > whole or sum(sizes.values()) > max(_ROOM, _MOST_TIMES * whole):
        raise InvalidRequest(
            f"{path} holds far more than its size; no bundle of ours does. It is not opened."
        )
    return sizes


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise InvalidRequest(f"{info.filename!r} in {path} is a link, or no file; a bundle has files alone.")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise InvalidRequest(f"{info.filename!r} in {path} is packed in a way that no bundle is.")
    # What zipfile makes of a name ends at a zero byte, and is shown otherwise by others.
    if info.orig_filename != info.filename or "\\" in info.filename:
        raise InvalidRequest(f"{info.orig_filename!r} in {path} is no name of a file in a bundle.")


def _take(sizes: dict[str, int], name: str, size: int, place: str) -> None:
    found = kind_of(name)
    if found is None:
        raise InvalidRequest(f"{name[:200]!r} in {place} is no name of a file in a bundle.")
    if name in sizes:
        raise InvalidRequest(f"{name!r} is in {place} twice.")
    if size > KINDS[found[0]].most:
        raise InvalidRequest(f"{name!r} in {place} has {size} bytes; {KINDS[found[0]].most} are the most.")
    if len(sizes) >= MOST_FILES:
        raise InvalidRequest(f"{place} has more than {MOST_FILES} files.")
    sizes[name] = size
