"""The files of a log as they grow: only ever added to, each durable before anything says that it is there.

Order of a growth: entries and tiles are written, synced, and named; their folders are synced; then the
checkpoint takes the place of the older one, and its folder is synced. Until then nobody was told of the new
entries, and whatever breaks, the next attempt writes the same bytes again: a tile is a function of the
entries and the size.

A file that is there already must have the bytes that would be written. If it has others, the entries are not
those that were written before, and a checkpoint over them could contradict a published one: the log stands
still.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from transom.errors import LogBroken, LogTaken, NotVerified
from transom.schema.merkle import leaf_hash
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.durable import Holder, Step, lock_folder, no_step, replace_file, sync_folder, write_file
from transom.tlog.files import CHECKPOINT, COSIGNED, LogFiles
from transom.tlog.notes import Note, Signer
from transom.tlog.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    TileHashes,
    fold,
    join_entries,
    split_hashes,
    tiles_between,
)
from transom.tlog.tree import prove_consistency, root_of, verify_consistency


class LogWriter(Holder, LogFiles):
    """A log that grows. There is one for a folder at a time.

    Args:
        folder: made where it is not there.
        signer: the log's own key.
        step: told the name of each step before it is taken; for tests that break it there.

    Raises:
        LogTaken: another has it.
        LogBroken: what lies there is not what the checkpoint says.
    """

    def __init__(self, folder: Path, signer: Signer, step: Step = no_step) -> None:
        super().__init__(folder, signer.verifier)
        self._signer = signer
        self._step = step
        try:
            self._lock = lock_folder(folder)
        except BlockingIOError:
            raise LogTaken(f"another process writes the log in {folder}; one is the most") from None
        try:
            self._head = self._checked()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def size(self) -> int:
        """Published entries."""
        return self._head.size

    def _checked(self) -> Checkpoint:
        try:
            head = self.checkpoint()
            root = root_of(self.hashes(head.size), head.size)
        except NotVerified as error:
            raise LogBroken(f"the log in {self.folder} cannot be continued: {error.message}") from None
        if root != head.root:
            raise LogBroken(f"the tiles in {self.folder} do not have the root that the checkpoint says")
        return head

    def append(self, entries: Sequence[bytes]) -> Note | None:
        """Publish entries after those that are published; the new checkpoint, None where none is needed.

        Raises:
            LogBroken: other entries were written in their place before.
            OSError: the disk did not take them; nothing was published.
            ValueError: an entry is too long.
        """
        if not entries and self.note() is not None:
            return None
        old, new = self.size, self.size + len(entries)
        content = _Content(self, old, entries)
        tiles = list(tiles_between(old, new))
        for tile in tiles:
            self._write_once(tile.path, content.of(tile))
        sync_folders(self.folder, tiles, self._step)
        root = root_of(content.hashes(new), new)
        self._check_growth(content, root, new)
        head = Checkpoint(self.key.name, new, root)
        note = head.signed(self._signer)
        replace_file(self.folder / CHECKPOINT, str(note).encode(), self._step)
        self._head = head
        prune(self.folder, tiles, self._step)
        return note

    def _check_growth(self, content: _Content, root: bytes, new: int) -> None:
        """That the new tree begins with the published one; nothing else is ever signed."""
        proof = prove_consistency(content.hashes(new), self._head.size, new)
        try:
            verify_consistency(proof, self._head.size, new, self._head.root, root)
        except NotVerified as error:
            raise LogBroken(f"the log in {self.folder} would contradict itself: {error.message}") from None

    def is_published(self, note: Note) -> bool:
        """Whether it is of the published checkpoint, with whatever signatures."""
        return note.text == self._head.text

    def publish(self, note: Note) -> None:
        """Put the published checkpoint with more signatures in its place.

        Raises:
            LogBroken: it is not the published one.
            NotVerified: the log's own signature is missing.
        """
        if open_checkpoint(str(note), self.key)[0] != self._head:
            raise LogBroken("a checkpoint with more signatures must be the one that is published")
        replace_file(self.folder / CHECKPOINT, str(note).encode(), self._step)

    def keep_cosigned(self, note: Note) -> None:
        """Keep a checkpoint with a quorum of cosignatures beside the published one, unless a newer is kept.

        Raises:
            LogBroken: it is none of this log.
            NotVerified: the log's own signature is missing.
        """
        head, _ = open_checkpoint(str(note), self.key)
        if head.size > self.size or root_of(self.hashes(head.size), head.size) != head.root:
            raise LogBroken("a checkpoint that was cosigned must be one that this log had")
        known = self.cosigned()
        if known is not None and open_checkpoint(known, self.key)[0].size > head.size:
            return
        replace_file(self.folder / COSIGNED, str(note).encode(), self._step)

    def _write_once(self, path: str, content: bytes) -> None:
        target = self.folder / path
        if target.exists():
            self._step(f"compare {path}")
            if target.read_bytes() == content:
                return
            raise LogBroken(f"{path} was written before, with other entries")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, content, path, self._step)


def sync_folders(folder: Path, tiles: Iterable[Tile], step: Step = no_step) -> None:
    """Make durable that the files of tiles are there: innermost folders first."""
    inner = {each for tile in tiles for each in Path(tile.path).parents}
    for each in sorted(inner, key=lambda path: -len(path.parts)):
        step(f"sync folder {each}")
        sync_folder(folder / each)


def prune(folder: Path, tiles: Iterable[Tile], step: Step = no_step) -> None:
    """Delete what full tiles were before they were full, which can be cut out of them."""
    for tile in tiles:
        narrow = (folder / tile.path).with_name(f"{tile.index % 1000:03d}.p")
        if tile.is_full and narrow.is_dir():
            step(f"prune {tile.path}")
            shutil.rmtree(narrow)


class _Content:
    """What the files of a growth hold.

    Args:
        log: as it is.
        old: its size.
        added: the entries after.
    """

    def __init__(self, log: LogFiles, old: int, added: Sequence[bytes]) -> None:
        self._log = log
        self._old = old
        self._added = added
        self._leaves = [leaf_hash(entry) for entry in added]
        self._made: dict[Tile, bytes] = {}

    def of(self, tile: Tile) -> bytes:
        """A tile of the grown log. Those of the levels below are asked for before it."""
        start = tile.index * WIDTH
        known = max(0, (self._old >> 8 * max(0, tile.level)) - start)
        before = self._before(tile, known) if known else b""
        content = before + self._after(tile, start + known, start + tile.width)
        self._made[tile] = content
        return content

    def _before(self, tile: Tile, known: int) -> bytes:
        return self._log.read(Tile(tile.level, tile.index, known))

    def _after(self, tile: Tile, start: int, end: int) -> bytes:
        if tile.level == ENTRIES:
            return join_entries(self._added[start - self._old : end - self._old])
        if tile.level == 0:
            return b"".join(self._leaves[start - self._old : end - self._old])
        below = (Tile(tile.level - 1, index) for index in range(start, end))
        return b"".join(fold(split_hashes(each, self._read(each))) for each in below)

    def _read(self, tile: Tile) -> bytes:
        return self._made[tile] if tile in self._made else self._log.read(tile)

    def hashes(self, size: int) -> TileHashes:
        """Of the grown log."""
        return TileHashes(size, self._read)
