"""A copy of a log in a folder, which any web server can hand out; see `transom mirror`.

The checkpoint is put in its place last: when every file that it speaks of is there, verified and durable.
What was copied before an interruption is found again, and verified again, by the next run. Public documents
that entries name come along; one that is not shown, or is another, is told and stops nothing, since the log
goes on without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transom.errors import InvalidRequest, NotVerified
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.durable import Holder, Step, lock_folder, no_step, replace_file, write_file
from transom.tlog.entries import Entry
from transom.tlog.files import CHECKPOINT, DOCUMENTS, LogFiles, LogReader
from transom.tlog.notes import MOST_SIGNATURES, Note
from transom.tlog.tiles import ENTRIES, WIDTH, Tile, split_entries, tiles_between
from transom.tlog.verified import VerifiedLog
from transom.tlog.writer import prune, sync_folders

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
"""It becomes a name of a file."""


class Mirror(Holder, LogFiles):
    """A copy of a log, that grows as the log does. There is one for a folder at a time.

    Args:
        folder: made where it is not there.
        log: that is copied.
        step: told the name of each step before it is taken; for tests that break it there.

    Raises:
        InvalidRequest: another process copies into it.
    """

    def __init__(self, folder: Path, log: LogReader, step: Step = no_step) -> None:
        super().__init__(folder, log.key)
        self._log = log
        self._step = step
        self.lacking: dict[str, str] = {}
        """Digests of documents that could not be copied yet, and why; each update tries again."""
        try:
            self._lock = lock_folder(folder)
        except BlockingIOError:
            raise InvalidRequest(
                f"Another process writes into {folder}; end it first.", param="folder"
            ) from None

    def update(self) -> Checkpoint:
        """Copy what is new; the checkpoint of the copy.

        Raises:
            NotVerified: the log shows something else than it did, or files that do not fit its checkpoint.
            ServerUnreachable: nobody is there.
            OSError: the disk did not take it.
        """
        content = self._log.note()
        if content is None:
            raise NotVerified("there is no checkpoint at the log")
        head, note = open_checkpoint(content, self.key)
        old = self.checkpoint()
        if head.size < old.size:
            raise NotVerified(f"the log shows {head.size} entries, and had {old.size}: it went back")
        self._copy_documents(list(self.lacking))
        if head.size == old.size and self.note() is not None:
            return self._resign(head, old, note)
        verified = VerifiedLog(head, self.read, self._log.read)
        if not verified.begins_with(old):
            raise NotVerified(
                f"the log of {head.size} entries does not begin with the {old.size} of the copy"
            )
        self._copy(verified, old.size)
        replace_file(self.folder / CHECKPOINT, str(note).encode(), self._step)
        prune(self.folder, tiles_between(old.size, head.size), self._step)
        return head

    def _resign(self, head: Checkpoint, old: Checkpoint, note: Note) -> Checkpoint:
        """Take the signatures along that came since; none is lost."""
        if head != old:
            raise NotVerified(f"the log shows another root of the {old.size} entries that the copy has")
        known = open_checkpoint(self.note() or b"", self.key)[1]
        newer = known.signed(*note.signatures)
        if len(newer.signatures) > MOST_SIGNATURES:
            newer = note
        if set(newer.signatures) != set(known.signatures):
            replace_file(self.folder / CHECKPOINT, str(newer).encode(), self._step)
        return head

    def _copy(self, verified: VerifiedLog, old: int) -> None:
        for tile in _in_order(old, verified.head.size):
            content = verified.read(tile)
            if self.file(tile.path) != content:
                target = self.folder / tile.path
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, content, tile.path, self._step)
            if tile.level == ENTRIES:
                first = max(0, old - tile.index * WIDTH)
                self._copy_documents(_public(split_entries(tile, content)[first:]))
        sync_folders(self.folder, _in_order(old, verified.head.size), self._step)

    def _copy_documents(self, digests: Iterable[str]) -> None:
        folder = self.folder / DOCUMENTS
        for digest in digests:
            try:
                content = self._log.document(digest)
            except NotVerified as error:
                self.lacking[digest] = error.message
                continue
            if content is None:
                self.lacking[digest] = f"{digest} is not there"
                continue
            folder.mkdir(exist_ok=True)
            replace_file(folder / digest, content, self._step)
            self.lacking.pop(digest, None)


def _public(entries: Sequence[bytes]) -> Iterator[str]:
    """Digests of the documents that entries name and everybody may read."""
    for content in entries:
        try:
            entry = Entry.parse(content)
        except NotVerified:  # of a kind that is not known here
            continue
        if entry.kind != "record" and _DIGEST.fullmatch(entry.digest):
            yield entry.digest


def _in_order(old: int, new: int) -> Iterator[Tile]:
    """The tiles of a growth, each bundle beside the hashes of its entries: both are needed together."""
    for tile in tiles_between(old, new):
        if tile.level == ENTRIES:
            yield tile
            yield Tile(0, tile.index, tile.width)
        elif tile.level > 0:
            yield tile
