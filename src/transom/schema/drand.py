"""drand: a beacon whose word anybody can check, whoever passed it on (https://docs.drand.love).

A chain is named by its hash, which covers the key that all its rounds are signed with. The word of a round is
the hash of a BLS signature over the round's number, so that a relay can withhold it, and not make it up.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from transom.errors import NotInstalled, NotVerified

SCHEME = "bls-unchained-g1-rfc9380"
"""The one that is understood: that of quicknet, and of chains that are newer."""

PREFIX = "drand:"

QUICKNET = PREFIX + "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""The chain of the League of Entropy that speaks every three seconds, by its hash."""

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Seconds = Annotated[int, Field(ge=0, lt=1 << 48)]


class Chain(BaseModel):
    """What a chain's hash covers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    public_key: Annotated[str, Field(pattern="^[0-9a-f]{192}$")]
    """A point of G2, compressed, 96 bytes."""
    period: Annotated[int, Field(gt=0, lt=1 << 31)]
    """Seconds from one round to the next."""
    genesis_time: _Seconds
    """Unix seconds of round 1."""
    group_hash: _Digest
    """Hash of the group that began the chain."""
    beacon_id: Annotated[str, Field(pattern="^[0-9a-zA-Z._-]{1,64}$")]

    @property
    def hash(self) -> str:
        """By which the chain is known, 64 hexadecimal digits."""
        numbers = struct.pack(">IQ", self.period, self.genesis_time)
        known = bytes.fromhex(self.public_key + self.group_hash)
        # A chain that was begun before there were names goes without.
        name = b"" if self.beacon_id == "default" else self.beacon_id.encode()
        return hashlib.sha256(numbers + known + name).hexdigest()

    @property
    def name(self) -> str:
        """As challenges have it."""
        return PREFIX + self.hash

    def time_of(self, number: int) -> int:
        """Unix seconds at which a round's word comes."""
        return self.genesis_time + (number - 1) * self.period

    def round_after(self, seconds: float) -> int:
        """The first round that comes later than so many Unix seconds."""
        return max(1, int(seconds - self.genesis_time) // self.period + 2)


class Spoken(BaseModel):
    """The word of a round with what shows that it is the beacon's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chain: Chain
    signature: Annotated[str, Field(pattern="^[0-9a-f]{96}$")]
    """A point of G1, compressed, 48 bytes."""

    def word(self, number: int) -> bytes:
        """What the beacon said in a round, 32 bytes.

        Args:
            number: of the round, from 1.

        Raises:
            NotVerified: the chain has not signed that round so.
            NotInstalled: this cannot be told here.
        """
        message = hashlib.sha256(struct.pack(">Q", number)).digest()
        signature = bytes.fromhex(self.signature)
        if not _is_signed(bytes.fromhex(self.chain.public_key), message, signature):
            raise NotVerified(f"the signature of round {number} is not one of the chain {self.chain.hash}")
        return hashlib.sha256(signature).digest()


def _is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        # Half a second of imports, and for who looks at a beacon only.
        from transom.schema.bls import is_signed  # noqa: PLC0415
    except ImportError:
        raise NotInstalled(
            "Signatures of drand are checked by an extra: pip install 'transom[beacon]'."
        ) from None
    return is_signed(key, message, signature)
