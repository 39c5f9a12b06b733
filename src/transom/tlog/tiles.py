"""Where a log's tree and entries lie: files of 256 hashes or entries (https://c2sp.org/tlog-tiles)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from transom.errors import NotVerified
from transom.schema.merkle import node_hash

WIDTH = 256
"""Hashes of a full tile; entries of a full bundle."""

ENTRIES = -1
"""Level of the entries themselves."""

MOST_ENTRY_BYTES = (1 << 16) - 1

_HEIGHT = 8
_HASH = 32
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the files; full where its width is 256."""

    level: int
    """0 holds the hashes of entries, and each level above one hash for each full tile below; or `ENTRIES`."""
    index: int
    width: int = WIDTH

    @property
    def is_full(self) -> bool:
        """Whether it will never change."""
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """Below the log's prefix."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        digits = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            digits.append(f"x{rest % 1000:03d}")
            rest //= 1000
        suffix = "" if self.is_full else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(digits))}{suffix}"

    @classmethod
    def parse(cls, path: str) -> Self | None:
        """The tile at a path below the log's prefix; None where no tile can be."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        level = ENTRIES if found["level"] == "entries" else int(found["level"])
        index = int(found["index"].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(found["width"] or WIDTH))
        # A path has one spelling: no superfluous x000, no full width.
        return tile if tile.path == path and tile.width <= WIDTH else None


def tile_at(level: int, index: int, size: int) -> Tile:
    """The tile as it is in a log of `size` entries.

    Raises:
        NotVerified: such a log does not have it.
    """
    width = min(WIDTH, _count(level, size) - index * WIDTH)
    if width < 1:
        raise NotVerified(f"a log of {size} entries has no tile {index} at level {level}")
    return Tile(level, index, width)


def _count(level: int, size: int) -> int:
    """Hashes of a level, or entries, in a log of `size`."""
    return size >> _HEIGHT * max(0, level)


def tiles_between(old: int, new: int) -> Iterator[Tile]:
    """The tiles that a log of `new` entries has and one of `old` does not, lower levels first."""
    for level in (ENTRIES, *range((new.bit_length() + _HEIGHT - 1) // _HEIGHT)):
        before, after = _count(level, old), _count(level, new)
        if after > before:
            for index in range(before // WIDTH, (after + WIDTH - 1) // WIDTH):
                yield tile_at(level, index, new)


def split_hashes(tile: Tile, content: bytes) -> list[bytes]:
    """The hashes (32 bytes each) of a tile's file.

    Raises:
        NotVerified: there are not as many as the tile has.
    """
    if len(content) != tile.width * _HASH:
        raise NotVerified(f"{tile.path} has {len(content)} bytes, and not {tile.width * _HASH}")
    return [content[at : at + _HASH] for at in range(0, len(content), _HASH)]


def split_entries(tile: Tile, content: bytes) -> list[bytes]:
    """The entries of a bundle's file: each after its length, two bytes.

    Raises:
        NotVerified: there are not as many as the bundle has.
    """
    entries, at = list[bytes](), 0
    while at < len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        if at + 2 > len(content) or end > len(content):
            raise NotVerified(f"{tile.path} ends in the middle of an entry")
        entries.append(content[at + 2 : end])
        at = end
    if len(entries) != tile.width:
        raise NotVerified(f"{tile.path} has {len(entries)} entries, and not {tile.width}")
    return entries


def join_entries(entries: Sequence[bytes]) -> bytes:
    """The file of a bundle.

    Raises:
        ValueError: one is longer than 65,535 bytes.
    """
    if any(len(entry) > MOST_ENTRY_BYTES for entry in entries):
        raise ValueError(f"an entry has more than {MOST_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash over a power of two of hashes."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


class TileHashes:
    """Hashes of complete subtrees, out of tiles. What they say is proven by nothing but a root that fits.

    Args:
        size: entries of the log.
        read: gives a tile's file.
    """

    def __init__(self, size: int, read: Callable[[Tile], bytes]) -> None:
        self._size = size
        self._read = read
        self._known: dict[Tile, list[bytes]] = {}

    def __call__(self, height: int, index: int) -> bytes:
        """See `tree.Hashes`.

        Raises:
            NotVerified: the log has no such subtree, or a tile is not what it should be.
        """
        level, above = divmod(height, _HEIGHT)
        place, within = divmod(index << above, WIDTH)
        hashes = self._tile(tile_at(level, place, self._size))
        part = hashes[within : within + (1 << above)]
        if len(part) != 1 << above:
            raise NotVerified(
                f"a log of {self._size} entries has no complete subtree {index} of height {height}"
            )
        return fold(part)

    def _tile(self, tile: Tile) -> list[bytes]:
        if tile not in self._known:
            self._known[tile] = split_hashes(tile, self._read(tile))
        return self._known[tile]
