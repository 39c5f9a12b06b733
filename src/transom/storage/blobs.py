"""Bytes by name, beside the database: in a folder, or in a bucket of S3, GCS or Azure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from transom.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_FAILURES = (BaseError, OSError)


class Blobs:
    """Blobs, each written once under a name that nobody else uses.

    Durability: `put` returns once the whole blob is on disk, or in the bucket. One that is cut off leaves no
    blob; in a folder, it may leave a file whose name has a `#`, which `old` finds too.

    Every method blocks. Any thread may call it.

    Args:
        place: a folder, also as `file:///…`; or the URL of a bucket, such as `s3://bucket/prefix`, `gs://…`
            or `az://…`, whose credentials come from the environment as their vendor's tools take them.

    Raises:
        ConfigurationError: that is no such place.
    """

    def __init__(self, place: str) -> None:
        self._folder = _folder_of(place)
        self._store = _open(place, self._folder)

    def put(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a blob, block by block.

        Raises:
            StorageError: it is not there, or nobody knows.
        """
        with _failing(f"{name} could not be written"):
            obstore.put(self._store, name, iter(blocks), use_multipart=True, max_concurrency=2)
            if self._folder is not None:
                _sync(self._folder / name)
                _sync(self._folder)

    def read(self, name: str, start: int, length: int) -> bytes:
        """Bytes of a blob; fewer than `length` at its end.

        Raises:
            StorageError: it is not there, or cannot be read.
        """
        with _failing(f"{name} cannot be read"):
            return bytes(obstore.get_range(self._store, name, start=start, length=length))

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; one that is not there is no error.

        Raises:
            StorageError: one could not be deleted.
        """
        for name in names:
            with _failing(f"{name} could not be deleted"):
                try:
                    obstore.delete(self._store, name)
                except FileNotFoundError:
                    continue

    def old(self, before: datetime) -> Iterator[str]:
        """Names of those that were last written before a moment.

        Raises:
            StorageError: they cannot be listed.
        """
        with _failing("they cannot be listed"):
            for found in obstore.list(self._store):
                yield from (meta["path"] for meta in found if meta["last_modified"] < before)
        if self._folder is not None:
            # What a cut-off write leaves is no blob, and the store does not list it.
            for left in self._folder.glob("*#*"):
                if left.stat().st_mtime < before.timestamp():
                    left.unlink(missing_ok=True)


def _folder_of(place: str) -> Path | None:
    url = urlsplit(place)
    if url.scheme == "file":
        return Path(unquote(url.path))
    return None if "://" in place else Path(place)


def _open(place: str, folder: Path | None) -> ObjectStore:
    try:
        if folder is None:
            return from_url(place)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(folder)
    except _FAILURES as error:
        raise ConfigurationError(
            f"TRANSOM_ARTIFACTS_URL: artifacts cannot be kept in {place!r}: {_first_line(error)}"
        ) from error


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise StorageError(f"A blob: {what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk; the store itself does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
