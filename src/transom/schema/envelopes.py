"""Envelopes of statements and the keys that sign them (DSSE 1.0, https://github.com/secure-systems-lab/dsse)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from transom.schema.canonical import canonical_bytes
from transom.schema.record import Read

KEY_TYPE = "application/vnd.transom.key+json"
"""Payload type of a key that the one before it endorses."""


class PublicKey(Read):
    """A key that signs records, or did."""

    keyid: str = Field(description="SHA-256 of the key's bytes")
    key: str = Field(description="The 32 bytes of Ed25519, in base64")
    valid_from: str = Field(description="RFC 3339, UTC: since when it signs")
    valid_until: str | None = Field(description="Until when it did; null for the one that signs now")
    endorsement: str | None = Field(
        None,
        description="Signature of the key before it over this one, in base64: of an envelope of the type "
        f"{KEY_TYPE} with the canonical JSON of `key`, `keyid` and `valid_from`. Null for the first",
    )

    @property
    def document(self) -> bytes:
        """What the key before it signs, and what the log has an entry of."""
        return key_document(base64.b64decode(self.key), self.valid_from)


class PublicKeys(Read):
    """Who signs what a server says."""

    log: str = Field(
        description="The key of the public log, as a verifier key of https://c2sp.org/signed-note; its name "
        "is the log's"
    )
    records: tuple[PublicKey, ...] = Field(description="The keys of records, oldest first")


def key_document(public: bytes, valid_from: str) -> bytes:
    """Canonical bytes of what is said of a key (32 bytes)."""
    encoded = base64.b64encode(public).decode()
    return canonical_bytes({"key": encoded, "keyid": key_id_of(public), "valid_from": valid_from})


def broken_succession(keys: Sequence[PublicKey]) -> Iterator[str]:
    """What is wrong with a list of keys: each is named by its bytes, and endorsed by the one before it."""
    for before, key in zip((None, *keys), keys, strict=False):
        try:
            public = base64.b64decode(key.key, validate=True)
            if key.keyid != key_id_of(public):
                yield f"{key.keyid} is not the id of its key"
            if before is not None:
                signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(before.key, validate=True))
                given = base64.b64decode(key.endorsement or "", validate=True)
                signer.verify(given, pre_authentication_encoding(KEY_TYPE, key.document))
        except InvalidSignature:
            yield f"{key.keyid} is not endorsed by the key before it"
        except ValueError as error:
            yield f"{key.keyid[:80]} is no key of Ed25519: {error}"


def key_id_of(public: bytes) -> str:
    """What a key (32 bytes) is called."""
    return "sha256:" + hashlib.sha256(public).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed: type and payload, each after its length, so that none passes for the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
