"""Bundles made: the same files give the same bytes, whenever and wherever."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from transom.client.bundle.metadata import File
from transom.client.downloads import replacing
from transom.errors import InvalidRequest

_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644
_CHUNK = 1 << 20


def look_at(path: Path) -> File:
    """Size and digest of a file."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return File(size, digest.hexdigest())


def write_zip(out: Path, files: Mapping[str, Path], seen: Mapping[str, File]) -> None:
    """Put files into a zip file, in the order of their names.

    They are not compressed: what deflate makes of them differs between versions of it.

    Args:
        out: takes the place of what is there once it is whole.
        files: by their names in it.
        seen: what was said of them; a file that has become another since is noticed.

    Raises:
        InvalidRequest: nothing can be written there, or a file has changed meanwhile.
    """
    with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3  # Unix, wherever it is made
            info.external_attr = _MODE << 16
            info.file_size = seen[name].size
            _copy(files[name], archive, info, seen[name])


def _copy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, seen: File) -> None:
    digest = sha256()
    with path.open("rb") as source, archive.open(info, "w") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != seen.sha256:
        raise InvalidRequest(f"{path} has changed while the bundle was made; make it again.", param="crate")
