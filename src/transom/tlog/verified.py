"""A log under a checkpoint that is believed: nothing of it is handed out that does not fit the root.

The tiles at the right edge, which are not full, have the root together. Each full tile has a hash in the
tile above it, and each bundle of entries has its hashes in the tile of level 0. So every file is verified by
itself, in any order, and little has to be in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from transom.errors import NotVerified
from transom.schema.merkle import leaf_hash
from transom.tlog.checkpoints import Checkpoint
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
)
from transom.tlog.tree import root_of

Source: TypeAlias = Callable[[Tile], bytes]
"""Gives a tile's file, or raises `NotVerified`."""

_KEPT = 64
"""Full tiles that are remembered."""


class VerifiedLog:
    """What a log holds, as its checkpoint says.

    Args:
        head: the checkpoint.
        sources: of full tiles; the next is asked where what one gives does not fit. The last is asked for all
            others too.

    Raises:
        NotVerified: the tiles at the right edge do not have the root that the checkpoint says.
    """

    def __init__(self, head: Checkpoint, *sources: Source) -> None:
        self.head = head
        self._sources = sources
        self._edge: dict[Tile, bytes] = {}
        self._kept: dict[Tile, list[bytes]] = {}
        if root_of(TileHashes(head.size, self._read_edge), head.size) != head.root:
            raise NotVerified(f"the tiles do not have the root of the checkpoint over {head.size} entries")

    def _read_edge(self, tile: Tile) -> bytes:
        content = self._sources[-1](tile)
        self._edge[tile] = content
        return content

    def read(self, tile: Tile) -> bytes:
        """A tile's file, or a bundle's.

        Raises:
            NotVerified: no source gives one that fits.
        """
        if tile.level == ENTRIES:
            return join_entries(self.entries(tile.index))
        return b"".join(self._hashes(tile))

    def entries(self, index: int) -> list[bytes]:
        """The entries of a bundle.

        Raises:
            NotVerified: no source gives those that fit.
        """
        expected = self._hashes(tile_at(0, index, self.head.size))
        bundle = tile_at(ENTRIES, index, self.head.size)

        def read(content: bytes) -> list[bytes] | None:
            found = split_entries(bundle, content)
            return found if list(map(leaf_hash, found)) == expected else None

        return self._fitting(bundle, read)

    def root_at(self, size: int) -> bytes:
        """Root (32 bytes) of the log when it had `size` entries, which is no more than it has.

        Raises:
            NotVerified: no source gives tiles that fit.
        """
        return root_of(TileHashes(self.head.size, self.read), size)

    def begins_with(self, older: Checkpoint) -> bool:
        """Whether a checkpoint is one that this log had.

        Raises:
            NotVerified: no source gives tiles that fit.
        """
        return older.size <= self.head.size and self.root_at(older.size) == older.root

    def _hashes(self, tile: Tile) -> list[bytes]:
        if not tile.is_full:
            if tile not in self._edge:
                raise NotVerified(f"{tile.path} is no tile of a log of {self.head.size} entries")
            return split_hashes(tile, self._edge[tile])
        if tile not in self._kept:
            above = self._hashes(tile_at(tile.level + 1, tile.index // WIDTH, self.head.size))

            def read(content: bytes) -> list[bytes] | None:
                found = split_hashes(tile, content)
                return found if fold(found) == above[tile.index % WIDTH] else None

            self._kept[tile] = self._fitting(tile, read)
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[tile]

    def _fitting(self, tile: Tile, read: Callable[[bytes], list[bytes] | None]) -> list[bytes]:
        reason = f"{tile.path} does not fit the checkpoint over {self.head.size} entries"
        for source in self._sources:
            try:
                found = read(source(tile))
            except NotVerified as error:
                reason = error.message
                continue
            if found is not None:
                return found
        raise NotVerified(reason)
