"""Proofs in a file, to be verified offline (https://c2sp.org/tlog-proof)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from transom.errors import NotVerified
from transom.schema.merkle import leaf_hash
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.notes import MOST_BYTES, Note, VerifierKey, decode, encode
from transom.tlog.tree import verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
"""First line of the file."""
"""The first line of a proof."""

_INDEX = re.compile("index (0|[1-9][0-9]{0,15})")
_MOST_HASHES = 63


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in a log: where, the hashes beside its way to the root, and the signed root."""

    index: int
    hashes: tuple[bytes, ...]
    """32 bytes each, from the entry's neighbour up."""
    checkpoint: str
    """The note, verbatim."""
    extra: bytes | None = None
    """What the application wants to have along; proven by nothing."""

    def __str__(self) -> str:
        head = [
            HEADER,
            *([] if self.extra is None else [f"extra {encode(self.extra)}"]),
            f"index {self.index}",
        ]
        lines = [*head, *map(encode, self.hashes), ""]
        return "".join(f"{line}\n" for line in lines) + self.checkpoint

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file.

        Raises:
            NotVerified: it is none.
        """
        if len(text) > MOST_BYTES:
            raise NotVerified(f"a proof has no more than {MOST_BYTES} characters")
        head, between, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not between or lines.pop(0) != HEADER:
            raise NotVerified(f"this is no proof of a log: its first line is not {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode(lines.pop(0).removeprefix("extra "), "extra data of a proof")
        found = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if found is None:
            raise NotVerified("the proof does not say at which index the entry is")
        if len(lines) > _MOST_HASHES:
            raise NotVerified(f"the proof has {len(lines)} hashes; no log has an entry with so many")
        hashes = tuple(decode(line, "a hash of a proof") for line in lines)
        if any(len(each) != 32 for each in hashes):
            raise NotVerified("a hash of the proof has not 32 bytes")
        return cls(int(found[1]), hashes, checkpoint, extra)

    def verify(self, entry: bytes, log: VerifierKey) -> tuple[Checkpoint, Note]:
        """The checkpoint, which the log has signed and under which the entry is; and its note.

        Raises:
            NotVerified: it is not.
        """
        checkpoint, note = open_checkpoint(self.checkpoint, log)
        verify_inclusion(self.hashes, self.index, checkpoint.size, leaf_hash(entry), checkpoint.root)
        return checkpoint, note
