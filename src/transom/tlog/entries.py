"""What an entry of the log says: of which kind a document is, and its digest. Nothing else is published.

A statement's commitments are salted, so its digest tells nothing to who does not have the statement; and
whoever has it finds its entry by the digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

from transom.errors import NotVerified
from transom.schema.canonical import canonical_bytes

Kind = Literal["record", "deployment", "policy", "key", "calibration", "challenge", "claim", "verdict"]
"""The documents that are logged. Of a record only who asked has it; the others are public."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_MOST_BYTES = 256
DIGEST = re.compile("sha256:[0-9a-f]{64}")
"""How digests are spelled in a log."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: canonical JSON with these two fields."""

    kind: Kind
    digest: str
    """SHA-256 of the document's bytes, as `sha256:` and 64 hexadecimal digits."""

    @property
    def content(self) -> bytes:
        """The leaf of the tree."""
        return canonical_bytes({"digest": self.digest, "kind": self.kind})

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a leaf.

        Raises:
            NotVerified: it is of no kind that is known here, or spelled in another way.
        """
        try:
            fields = json.loads(content) if len(content) <= _MOST_BYTES else {}
            entry = cls(fields["kind"], fields["digest"])
            # Whoever writes a log chooses what stands here, and a digest becomes a name elsewhere.
            is_named = entry.kind in KINDS and DIGEST.fullmatch(entry.digest) is not None
            known = is_named and entry.content == content
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if not known:
            raise NotVerified(f"{content[:120]!r} is no entry of a kind that is known here")
        return entry


def documents_in(entries: Iterable[bytes]) -> Iterator[str]:
    """Digests of the documents that entries name and everybody may read."""
    for content in entries:
        try:
            entry = Entry.parse(content)
        except NotVerified:  # of a kind that is not known here
            continue
        if entry.kind != "record":
            yield entry.digest
