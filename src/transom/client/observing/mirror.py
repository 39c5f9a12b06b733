"""A copy of a log in a folder, which any web server can hand out; see `transom mirror`.

The checkpoint is put in its place last: when every file that it speaks of is there, verified and durable.
What was copied before an interruption is found again, and verified again, by the next run. Public documents
that entries name come along; one that is not shown, or is another, is told and stops nothing, since the log
goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from transom.client.observing.documents import Documents
from transom.errors import InvalidRequest, NotFound, NotVerified
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.durable import Holder, Step, lock_folder, no_step, replace_file, write_file
from transom.tlog.entries import documents_in
from transom.tlog.files import CHECKPOINT, DOCUMENTS, LogFiles, LogReader
from transom.tlog.notes import MOST_SIGNATURES, Note
from transom.tlog.tiles import ENTRIES, WIDTH, Tile, tiles_between
from transom.tlog.verified import VerifiedLog
from transom.tlog.writer import prune, sync_folders


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
        self._looked_through = 0
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
        try:
            old = self.checkpoint()
        except NotVerified as error:
            raise NotVerified(
                f"{self.folder / CHECKPOINT} was damaged ({error.message}); begin anew elsewhere, and compare"
            ) from None
        if head.size < old.size:
            raise NotVerified(f"the log shows {head.size} entries, and had {old.size}: it went back")
        if head.size == old.size and self.note() is not None:
            self._resign(head, old, note)
        else:
            self._grow(head, old, note)
        # Only now: whoever withholds documents must not hold up what shows that they do.
        self._copy_documents(head.size)
        return head

    def _grow(self, head: Checkpoint, old: Checkpoint, note: Note) -> None:
        verified = VerifiedLog(head, self.read, self._log.read)
        if not verified.begins_with(old):
            raise NotVerified(
                f"the log of {head.size} entries does not begin with the {old.size} of the copy"
            )
        self._copy(verified, old.size)
        replace_file(self.folder / CHECKPOINT, str(note).encode(), self._step)
        prune(self.folder, tiles_between(old.size, head.size), self._step)

    def _resign(self, head: Checkpoint, old: Checkpoint, note: Note) -> None:
        """Take the signatures along that came since; none is lost."""
        if head != old:
            raise NotVerified(f"the log shows another root of the {old.size} entries that the copy has")
        known = open_checkpoint(self.note() or b"", self.key)[1]
        newer = known.signed(*note.signatures)
        if len(newer.signatures) > MOST_SIGNATURES:
            newer = note
        if set(newer.signatures) != set(known.signatures):
            replace_file(self.folder / CHECKPOINT, str(newer).encode(), self._step)

    def _copy(self, verified: VerifiedLog, old: int) -> None:
        for tile in _in_order(old, verified.head.size):
            content = verified.read(tile)
            if self.file(tile.path) != content:
                target = self.folder / tile.path
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, content, tile.path, self._step)
        sync_folders(self.folder, _in_order(old, verified.head.size), self._step)

    def _copy_documents(self, size: int) -> None:
        for start in range(self._looked_through, size, WIDTH):
            self._want_documents(start, min(start + WIDTH, size))
        self._looked_through = size
        folder, documents = self.folder / DOCUMENTS, Documents(self._log)
        for digest in list(self.lacking):
            try:
                content = documents.fetch(digest)
            except (NotFound, NotVerified) as error:
                self.lacking[digest] = error.message
                continue
            folder.mkdir(exist_ok=True)
            replace_file(folder / digest, content, self._step)
            del self.lacking[digest]

    def _want_documents(self, start: int, end: int) -> None:
        """Those that entries of the copy name and that are not there; after a start, of all entries."""
        try:
            entries = self.entries(start, end)
        except NotVerified:  # `transom log check` tells of a copy that was damaged
            return
        for digest in documents_in(entries):
            with suppress(NotVerified):  # what is there is another one, and is replaced
                if self.document(digest) is not None:
                    continue
            self.lacking[digest] = f"{digest} is not there"


def _in_order(old: int, new: int) -> Iterator[Tile]:
    """The tiles of a growth, each bundle beside the hashes of its entries: both are needed together."""
    for tile in tiles_between(old, new):
        if tile.level == ENTRIES:
            yield tile
            yield Tile(0, tile.index, tile.width)
        elif tile.level > 0:
            yield tile
