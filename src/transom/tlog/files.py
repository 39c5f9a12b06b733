"""A log as anybody may read it, out of a folder or from elsewhere; and whether its files agree."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from transom.errors import NotVerified
from transom.schema.canonical import sha256
from transom.schema.merkle import EMPTY_ROOT, leaf_hash
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.notes import VerifierKey
from transom.tlog.policies import Policy
from transom.tlog.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    TileHashes,
    fold,
    join_entries,
    split_entries,
    split_hashes,
    tile_at,
    tiles_between,
)
from transom.tlog.tree import prove_consistency, prove_inclusion, root_of

CHECKPOINT = "checkpoint"

DOCUMENTS = "documents"
"""Folder of what entries name that everybody may read."""

COSIGNED = "cosigned"
"""Beside it in the folder: the newest one with a quorum of cosignatures. It is part of receipts only."""


class LogReader(ABC):
    """The files of a log, wherever they are.

    Args:
        key: of the log.
    """

    def __init__(self, key: VerifierKey) -> None:
        self.key = key

    @abstractmethod
    def file(self, path: str) -> bytes | None:
        """The file at a path below the log's prefix; None where there is none."""

    def note(self) -> bytes | None:
        """The published checkpoint, verbatim; None where there is none yet."""
        return self.file(CHECKPOINT)

    def document(self, digest: str) -> bytes | None:
        """The public document of an entry; None where whoever shows the log does not have it.

        Raises:
            NotVerified: it is another one.
        """
        content = self.file(f"{DOCUMENTS}/{digest}")
        if content is not None and sha256(content) != digest:
            raise NotVerified(f"what is shown as {digest} is another document")
        return content

    def checkpoint(self) -> Checkpoint:
        """The published checkpoint; an empty one where there is none yet.

        Raises:
            NotVerified: the log has not signed it.
        """
        note = self.note()
        return empty(self.key) if note is None else open_checkpoint(note, self.key)[0]

    def read(self, tile: Tile) -> bytes:
        """A tile's file. A partial one may be gone, or never have been, and is cut out of a wider one.

        Raises:
            NotVerified: it is not there.
        """
        for wider in dict.fromkeys((tile, Tile(tile.level, tile.index), *self.wider(tile))):
            content = self.file(wider.path)
            if content is not None:
                return _cut(tile, wider, content)
        raise NotVerified(f"{tile.path} is not there")

    def wider(self, tile: Tile) -> Iterator[Tile]:  # noqa: ARG002  # a folder can tell
        """Other partial tiles that have what this one has, where that can be told."""
        return iter(())

    def hashes(self, size: int) -> TileHashes:
        """Of complete subtrees in the log when it had `size` entries."""
        return TileHashes(size, self.read)

    def entries(self, start: int, end: int) -> list[bytes]:
        """The entries start .. end, as far as a checkpoint has them.

        Raises:
            NotVerified: they are not there.
        """
        found: list[bytes] = []
        size = self.checkpoint().size
        for index in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
            tile = tile_at(ENTRIES, index, size)
            found += split_entries(tile, self.read(tile))
        return found[start % WIDTH :][: end - start]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that an entry is in the log of `size` entries; see `tree.prove_inclusion`."""
        return prove_inclusion(self.hashes(size), index, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the log of `new` entries begins with that of `old`; see `tree.prove_consistency`."""
        return prove_consistency(self.hashes(new), old, new)


class LogFiles(LogReader):
    """The files of a log in a folder.

    Args:
        folder: of the checkpoint, and of `tile/`.
        key: of the log.
    """

    def __init__(self, folder: Path, key: VerifierKey) -> None:
        super().__init__(key)
        self.folder = folder

    def file(self, path: str) -> bytes | None:
        """The file at a path below the log's prefix; None where there is none."""
        with suppress(FileNotFoundError):
            return (self.folder / path).read_bytes()
        return None

    def age(self) -> float | None:
        """Seconds since the checkpoint was written, by this machine's clock; None where there is none yet."""
        with suppress(FileNotFoundError):
            return max(0.0, time.time() - (self.folder / CHECKPOINT).stat().st_mtime)
        return None

    def wider(self, tile: Tile) -> Iterator[Tile]:
        """Partial tiles of a later growth."""
        for path in () if tile.is_full else sorted((self.folder / tile.path).parent.glob("*")):
            if path.name.isdecimal() and int(path.name) > tile.width:
                yield Tile(tile.level, tile.index, int(path.name))

    def cosigned(self) -> bytes | None:
        """The newest checkpoint that enough witnesses have cosigned; None where no witness is asked."""
        return self.file(COSIGNED)


def empty(key: VerifierKey) -> Checkpoint:
    """The head of a log that has no checkpoint yet."""
    return Checkpoint(key.name, 0, EMPTY_ROOT)


def _cut(tile: Tile, wider: Tile, content: bytes) -> bytes:
    """What a tile had when it was narrower."""
    if tile.level == ENTRIES:
        return join_entries(split_entries(wider, content)[: tile.width])
    return b"".join(split_hashes(wider, content)[: tile.width])


def check_files(
    log: LogFiles,
    entry: Callable[[int, bytes], object] | None = None,
    head: Checkpoint | None = None,
    policy: Policy | None = None,
) -> Iterator[str]:
    """Everything that is wrong with a log's files, told as it is found; nothing where all is well.

    Args:
        log: whose checkpoint, tiles and entries are compared with each other.
        entry: told each entry with its index.
        head: the checkpoint that they are compared with; left out, the published one.
        policy: who must have cosigned the published checkpoint; None for nobody.
    """
    try:
        head = head or log.checkpoint()
        if policy is not None:
            policy.verify(log.note() or b"")
    except NotVerified as error:
        yield error.message
        return
    expected: dict[tuple[int, int], bytes] = {}
    for tile in tiles_between(0, head.size):
        try:
            content = log.read(tile)
            if tile.level == ENTRIES:
                entries = split_entries(tile, content)
                for place, each in enumerate(entries if entry else ()):
                    entry(tile.index * WIDTH + place, each)  # type: ignore[misc]  # there is one
                expected[0, tile.index] = b"".join(map(leaf_hash, entries))
                continue
            hashes = split_hashes(tile, content)
        except NotVerified as error:
            yield error.message
            continue
        if expected.pop((tile.level, tile.index), b"") != content:
            yield f"{tile.path} does not hold the hashes of what is below it"
        if tile.is_full:
            above = tile.level + 1, tile.index // WIDTH
            expected[above] = expected.get(above, b"") + fold(hashes)
    yield from _wrong_root(log, head)


def _wrong_root(log: LogFiles, head: Checkpoint) -> Iterator[str]:
    try:
        if root_of(log.hashes(head.size), head.size) != head.root:
            yield "the tiles do not have the root that the checkpoint says"
    except NotVerified as error:
        yield error.message
