"""Challenges: records that nobody could choose in advance, or that somebody asks for, replayed in public.

A challenge is logged before it is known what it will hit, with a deadline; its verdict is logged too. Both
are public documents of the log, so that a challenge that was never met can be seen by everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.canonical import canonical_bytes, sized
from transom.schema.drand import Spoken
from transom.schema.record import Read

Outcome = Literal["open", "met", "missed"]

MOST_DRAWN = 256
"""Entries that one lot can fall on."""


class _Document(BaseModel):
    """Base of documents of the log: closed, immutable, without floats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def content(self) -> bytes:
        """Canonical bytes; the entry of the log has their digest."""
        return canonical_bytes(self.model_dump())


class Lot(_Document):
    """Where the chance of a challenge comes from: what a beacon will say in a round that is yet to come."""

    beacon: str
    """Its name: `drand:` and the hash of a chain, or `file:` and a file's name."""
    round: str
    count: Annotated[int, Field(ge=1, le=MOST_DRAWN)]
    """How many entries are drawn."""


class Challenge(_Document):
    """Which entries of the log are to be replayed, and until when."""

    type: Literal["urn:transom:challenge:v1"] = "urn:transom:challenge:v1"
    opened: str
    """RFC 3339, UTC."""
    deadline: str
    checkpoint: str
    """The log's note as it was published: its size bounds the draw, and its root is half of the chance."""
    index: int | None = None
    """The entry that somebody asks for; None where lots are drawn."""
    lot: Lot | None = None


class Judged(_Document):
    """What came of one entry."""

    index: int
    digest: str | None
    """Of the record; None where the entry is none."""
    level: Literal["EXACT", "WITHIN", "OUTSIDE", "UNREPLAYABLE", "NO RECORD", "MISSING"]
    """That of the replay. `NO RECORD`: another kind of entry; `MISSING`: the record is not there any more."""
    reason: str | None = None


class Verdict(_Document):
    """What came of a challenge."""

    type: Literal["urn:transom:verdict:v1"] = "urn:transom:verdict:v1"
    challenge: str
    """Digest of the challenge."""
    judged: str
    """RFC 3339, UTC."""
    value: str | None = None
    """What the beacon said, in hexadecimal; None where nothing was drawn."""
    spoken: Spoken | None = None
    """What shows that the beacon said so; None where it is a file."""
    shown: str | None = None
    """A checkpoint that has the challenge, with the times at which witnesses cosigned it: the first that
    there was. None where nothing was drawn, and where no witness was asked."""
    found: tuple[Judged, ...]


def drawn(root: bytes, value: bytes, size: int, count: int) -> Iterator[int]:
    """The entries that a lot falls on, each at most once.

    Args:
        root: of the log's tree, 32 bytes.
        value: what the beacon said.
        size: of the log; entries are drawn from 0 .. size.
        count: how many; fewer where the log has fewer.
    """
    seen: set[int] = set()
    number = 0
    while len(seen) < min(count, size):
        parts = (b"transom-challenge-v1", root, value, number.to_bytes(8, "big"))
        # 256 bits modulo a size below 2^48: no entry is likelier than another by more than 2^-200.
        index = int.from_bytes(hashlib.sha256(b"".join(map(sized, parts))).digest(), "big") % size
        number += 1
        if index not in seen:
            seen.add(index)
            yield index


class ChallengeView(Read):
    """A challenge in a list; `/log/documents/` and a digest shows the whole."""

    digest: str = Field(description="Of the challenge's document")
    place: int = Field(description="Of its entry in the log")
    index: int | None = Field(description="The entry that was asked for; null where lots are drawn")
    opened: str
    deadline: str
    verdict: str | None = Field(description="Digest of the verdict's document; null while there is none")
    judged: str | None = Field(description="When there was one")
    outcome: Outcome = Field(description="`met`: there was a verdict in time; `missed`: there was none")


class ChallengePage(Read):
    """The newest challenges, newest first."""

    data: tuple[ChallengeView, ...]


class Cosigned(Read):
    """A witness that has seen the newest checkpoint."""

    name: str
    at: int = Field(description="Unix seconds")


class LogState(Read):
    """How the public log stands."""

    origin: str
    kept: int = Field(description="Entries in the database")
    published: int = Field(description="Entries under the checkpoint")
    checkpoint_age_s: float | None = Field(description="Since it was written; null where there is none")
    stands: str | None = Field(description="Why nothing is published; null where it is")
    witnesses: tuple[Cosigned, ...] = Field(description="Who cosigned, of those that the operator names")


class InForce(Read):
    """A deployment that answers now."""

    model: str
    deployment: str
    place: int | None = Field(description="Of its entry in the log")


class ChallengeCounts(Read):
    """Challenges by their outcome."""

    open: int = 0
    met: int = 0
    missed: int = 0


class Transparency(Read):
    """What an operator is held to, in numbers. Believe the log and its witnesses, and not this page."""

    log: LogState
    deployments: tuple[InForce, ...]
    challenges: ChallengeCounts
    beacon: str | None = Field(description="Name of what lots are drawn by; null where none are drawn")
