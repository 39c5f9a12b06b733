"""Envelopes of statements and the keys that sign them (DSSE 1.0, https://github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import hashlib

from pydantic import Field

from transom.schema.record import Read


class PublicKey(Read):
    """A key that signs records, or did."""

    keyid: str = Field(description="SHA-256 of the key's bytes")
    key: str = Field(description="The 32 bytes of Ed25519, in base64")
    valid_from: str = Field(description="RFC 3339, UTC: since when it signs")
    valid_until: str | None = Field(description="Until when it did; null for the one that signs now")


class PublicKeys(Read):
    """Who signs what a server says."""

    log: str = Field(
        description="The key of the public log, as a verifier key of https://c2sp.org/signed-note; its name "
        "is the log's"
    )
    records: tuple[PublicKey, ...] = Field(description="The keys of records, oldest first")


def key_id_of(public: bytes) -> str:
    """What a key (32 bytes) is called."""
    return "sha256:" + hashlib.sha256(public).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed: type and payload, each after its length, so that none passes for the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
