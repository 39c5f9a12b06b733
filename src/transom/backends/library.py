"""The folder of model roots that one operator serves from."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from transom.backends import manifest
from transom.backends.manifest import Progress, no_progress
from transom.errors import ModelRefused
from transom.schema.deployment import ModelManifest

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
"""A model's name goes into URLs, file paths and records as it is."""
STAGING = ".adding-"

Convert: TypeAlias = Callable[[str, Path, Progress], None]
"""Writes the model root of a source into a folder that does not exist yet: `engine.convert.convert`."""


class Added(NamedTuple):
    """What `add` did."""

    name: str
    path: Path
    manifest: ModelManifest
    created: bool
    """False where the library held exactly this model already and nothing was done."""


class ModelLibrary:
    """Model roots by name, each written once and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self, source: str, name: str | None = None, *, convert: Convert, progress: Progress = no_progress
    ) -> Added:
        """Converts a source and keeps the result under a name.

        One `add` runs at a time in a library; a killed one leaves a hidden folder, which the next removes.

        Args:
            source: what `convert` understands: a folder, a GGUF file, a hub id or a known name.
            name: a slug; by default the last part of `source`.
            convert: writes the model root.
            progress: told each stage and how far it is.

        Raises:
            ModelRefused: the name is no slug or holds another model, or the source cannot be converted.
        """
        name = check_name(name if name is not None else default_name(source))
        with self._lock(), self._staging() as staging:
            converted = staging / name
            convert(source, converted, progress)
            computed = manifest.compute(converted, progress)
            held = self._folder / name
            if held.exists():
                return Added(name, held, _same(name, manifest.load(held), computed), created=False)
            manifest.save(converted, computed)
            converted.rename(held)
            _sync(self._folder)
        return Added(name, held, computed, created=True)

    def list(self) -> Sequence[tuple[str, ModelManifest]]:
        """Names and manifests of all models, by name; their files are not checked."""
        return [(name, manifest.load(self._folder / name)) for name in self._names()]

    def path(self, name: str) -> Path:
        """The model root of `name`.

        Raises:
            ModelRefused: there is none; the message names those that there are.
        """
        names = self._names()
        if name not in names:
            known = ", ".join(names) or "none yet; add one with `transom model add`"
            raise ModelRefused(f"there is no model {name!r} in {self._folder}; known: {known}")
        return self._folder / name

    def _names(self) -> Sequence[str]:
        """Folders with a manifest; the manifest is written last, so nothing half-written counts."""
        found = self._folder.glob(f"*/{manifest.MANIFEST_NAME}")
        return sorted(path.parent.name for path in found if NAME.fullmatch(path.parent.name))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ModelRefused(f"another `transom model add` is at work in {self._folder}") from None
            yield

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        for leftover in self._folder.glob(f"{STAGING}*"):
            # The lock is held, so whoever made it is dead.
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=self._folder) as folder:
            yield Path(folder)


def check_name(name: str) -> str:
    """The name, where it is one.

    Raises:
        ModelRefused: it is no slug.
    """
    if not NAME.fullmatch(name):
        raise ModelRefused(
            f"{name!r} cannot be a model's name: use up to 96 of a-z, 0-9, '.', '_' and '-', "
            "and begin with a letter or digit"
        )
    return name


def default_name(source: str) -> str:
    """Last part of a path or hub id, in lower case, without `.gguf`."""
    return Path(source).name.lower().removesuffix(".gguf")


def _same(name: str, held: ModelManifest, computed: ModelManifest) -> ModelManifest:
    if held.digest != computed.digest:
        raise ModelRefused(
            f"the library holds another model as {name!r} ({held.digest}); "
            f"give this one ({computed.digest}) a name of its own"
        )
    return held


def _sync(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
