"""What a log sends to its witnesses, and what they answer (https://c2sp.org/tlog-witness)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from transom.errors import NotVerified
from transom.tlog.notes import Signature, decode, encode

PATH = "add-checkpoint"
"""Below a witness's submission prefix."""

SIZE_TYPE = "text/x.tlog.size"
"""Of the answer that says which size a witness knows."""

MOST_BYTES = 1 << 16
"""Longer submissions, and longer answers, are not read."""

MOST_HASHES = 63
"""Of a proof; no log is large enough to need more."""

_OLD = re.compile("old (0|[1-9][0-9]{0,15})")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,15})\n")


@dataclass(frozen=True, slots=True)
class Submission:
    """A new checkpoint, and the proof that it grew out of the one that the witness knows."""

    old: int
    """Size of the log that the witness knows; 0 for none."""
    proof: tuple[bytes, ...]
    """Hashes of 32 bytes, in the order of RFC 6962, section 2.1.2."""
    note: str
    """The checkpoint, signed."""

    def __str__(self) -> str:
        lines = (f"old {self.old}", *map(encode, self.proof), "")
        return "".join(f"{line}\n" for line in lines) + self.note

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the body of a request; the checkpoint in it is not looked into.

        Raises:
            NotVerified: it is none.
        """
        if len(content) > MOST_BYTES:
            raise NotVerified(f"a submission has no more than {MOST_BYTES} bytes")
        try:
            head, between, note = content.decode().partition("\n\n")
        except UnicodeDecodeError:
            raise NotVerified("the submission is no UTF-8") from None
        first, *lines = head.split("\n")
        old = _OLD.fullmatch(first)
        if not between or old is None:
            raise NotVerified(
                "a submission is: old and a size, the hashes of a proof, an empty line, a checkpoint"
            )
        if len(lines) > MOST_HASHES:
            raise NotVerified(f"the proof has {len(lines)} hashes; no log needs more than {MOST_HASHES}")
        proof = tuple(decode(line, "a hash of the proof") for line in lines)
        if any(len(each) != 32 for each in proof):
            raise NotVerified("a hash of the proof has not 32 bytes")
        return cls(int(old[1]), proof, note)


def spell_signatures(signatures: Iterable[Signature]) -> str:
    """The answer of a witness that cosigned."""
    return "".join(f"{signature.line}\n" for signature in signatures)


def read_signatures(content: bytes) -> list[Signature]:
    """Signatures out of such an answer; whose they are, and of what, is not looked at.

    Raises:
        NotVerified: it is none.
    """
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise NotVerified("the answer is no UTF-8") from None
    if len(lines) < 2 or lines.pop():
        raise NotVerified("the answer is no line, or lines, with a signature")
    return [Signature.parse(line) for line in lines]


def spell_size(size: int) -> str:
    """The answer of a witness that knows another size."""
    return f"{size}\n"


def read_size(content: bytes) -> int:
    """The size out of such an answer.

    Raises:
        NotVerified: it is none.
    """
    found = _SIZE.fullmatch(content.decode(errors="replace"))
    if found is None:
        raise NotVerified(f"{content[:80]!r} is no size of a log")
    return int(found[1])
