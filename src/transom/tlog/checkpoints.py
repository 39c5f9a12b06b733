"""Checkpoints: how large a log is and what its tree's root is, signed (https://c2sp.org/tlog-checkpoint).

Witnesses add cosignatures (https://c2sp.org/tlog-cosignature): that they have seen it grow into this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from transom.errors import NotVerified
from transom.tlog.notes import Note, Signer, VerifierKey, decode, encode, sign_note

MOST_ENTRIES = 1 << 48
"""A log that says it is larger is not believed."""

_SIZE = re.compile("0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log."""

    origin: str
    """Name of the log."""
    size: int
    """Entries."""
    root: bytes
    """Of the Merkle tree over them, 32 bytes (RFC 6962, section 2.1)."""
    extensions: tuple[str, ...] = ()
    """Lines that mean nothing here, and are signed too."""

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), encode(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note.

        Raises:
            NotVerified: it is none.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise NotVerified("a checkpoint has at least three lines, and none is empty: origin, size, root")
        origin, size, root, *extensions = lines[:-1]
        if not _SIZE.fullmatch(size) or int(size) > MOST_ENTRIES:
            raise NotVerified(f"{size[:80]!r} is no size of a log")
        found = decode(root, "the root of a checkpoint")
        if len(found) != 32:
            raise NotVerified("the root of a checkpoint has 32 bytes")
        return cls(origin, int(size), found, tuple(extensions))

    def signed(self, *signers: Signer) -> Note:
        """The note that the log publishes."""
        return sign_note(self.text, signers)


def open_checkpoint(content: str | bytes, log: VerifierKey) -> tuple[Checkpoint, Note]:
    """The checkpoint in a note that the log has signed.

    Args:
        content: the note.
        log: its key, whose name is the log's origin.

    Raises:
        NotVerified: the log has not signed it, or it is another log's.
    """
    note = Note.parse(content)
    if not note.verified([log]):
        raise NotVerified(f"the checkpoint carries no signature of {log.name!r} by the key that was given")
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log.name:
        raise NotVerified(f"the checkpoint is of {checkpoint.origin[:80]!r}, and not of {log.name!r}")
    return checkpoint, note


def cosigners(note: Note, witnesses: Iterable[VerifierKey]) -> dict[VerifierKey, int]:
    """The witnesses that have cosigned, each with the Unix seconds at which it did.

    Raises:
        NotVerified: a cosignature of a known witness is not one.
    """
    return {key: signature.time for key, signature in note.verified(witnesses)}
