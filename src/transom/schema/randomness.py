"""A seed that neither side picks: each brings a secret, the server's fixed before it sees the client's.

The server promises a secret by its hash, the client answers with a nonce, and the seed is a hash of both
(M. Blum, "Coin flipping by telephone", 1981). Whoever sees the record can compute it again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field

from transom.schema.canonical import sha256, sized
from transom.schema.record import Read
from transom.schema.wire import Body

SECRET_BYTES = 32
MOST_PROMISES = 1000
"""Promises of a project that wait for their request."""

PLANS = "/v1/traces"
"""Endpoint of plans, which draw nothing by themselves."""

DIGEST = "^sha256:[0-9a-f]{64}$"
_NONCE = "^([0-9a-f]{2}){16,64}$"


class JointSeedBody(Body):
    """Draw with a seed that neither side picks."""

    commitment: str = Field(
        pattern=DIGEST, description="One that `POST /v1/seeds` gave to this project and that was not used"
    )
    nonce: str = Field(
        pattern=_NONCE, description="Yours: 16 to 64 random bytes in hexadecimal, drawn after the commitment"
    )


class SeedsBody(Body):
    """How many promises are wanted."""

    count: int = Field(default=1, ge=1, le=100, description="Commitments, each for one request")


class Promises(Read):
    """Commitments of the server to secrets that it drew."""

    commitments: tuple[str, ...] = Field(description="SHA-256 of secrets that were drawn before this reply")
    expires: str = Field(description="RFC 3339, UTC: until when a request may name them")


@dataclass(frozen=True, slots=True)
class JointSeed:
    """Both secrets, as they stand in a record."""

    secret: str
    """The server's, in hexadecimal."""
    nonce: str
    """The client's, in hexadecimal."""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """What a record says.

        Raises:
            KeyError, TypeError, ValueError: it is not well-formed.
        """
        found = cls(said["secret"], said["nonce"])
        if said != found.said:
            raise ValueError("the commitment is not that of the secret")
        return found

    @property
    def commitment(self) -> str:
        """What the server had promised."""
        return commitment_of(bytes.fromhex(self.secret))

    @property
    def seed(self) -> int:
        """63 bits of the hash of both."""
        parts = (b"transom-joint-seed-v1", bytes.fromhex(self.secret), bytes.fromhex(self.nonce))
        return int.from_bytes(hashlib.sha256(b"".join(map(sized, parts))).digest()[:8], "big") >> 1

    @property
    def said(self) -> dict[str, str]:
        """As it stands in a record."""
        return {"commitment": self.commitment, "secret": self.secret, "nonce": self.nonce}


def bring_nonces(promises: Promises) -> list[dict[str, str]]:
    """For each commitment what a request says in `transom.seed`, with a nonce that is drawn now."""
    return [
        {"commitment": commitment, "nonce": secrets.token_hex(SECRET_BYTES)}
        for commitment in promises.commitments
    ]


def new_secret() -> bytes:
    """A secret to promise."""
    return secrets.token_bytes(SECRET_BYTES)


def commitment_of(secret: bytes) -> str:
    """What is told of a secret before its time; with 256 random bits, nothing can be guessed from it."""
    return sha256(sized(b"transom-seed-commitment-v1") + sized(secret))


def has_own_seed(statement: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether the seed of a record is the one that its request asked for; see `is_own_seed`."""
    predicate = statement["predicate"]
    if predicate["request"]["endpoint"] == PLANS and body.get("seed") is None:
        # A plan that names no seed has the one that plans have.
        body = {**body, "seed": int(predicate["randomness"]["seed"])}
    return is_own_seed(predicate["randomness"], body)


def is_own_seed(randomness: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether the seed of a record is the one that the request asked for.

    Args:
        randomness: of the statement: a seed, and who picked it.
        body: the request: with a seed, or with commitment and nonce of one that neither side picks.
    """
    try:
        said, given = randomness.get("joint"), body.get("seed")
        asked = (body.get("transom") or {}).get("seed")
        if asked is None:
            source = "server" if given is None else "explicit"
            same = given is None or str(given) == randomness["seed"]
            return bool(randomness["source"] == source and said is None and same)
        joint = JointSeed.read(said or {})
        named = {"commitment": joint.commitment, "nonce": joint.nonce}
        return bool(
            randomness["source"] == "joint" and str(joint.seed) == randomness["seed"] and asked == named
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
