"""Who signs records: keys of Ed25519, the newest of which signs (https://github.com/secure-systems-lab/dsse).

Older ones stay in the file, so that what they have signed verifies; each is known by a digest of its public
half.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import ConfigurationError
from transom.schema.envelopes import (
    KEY_TYPE,
    PublicKey,
    key_document,
    key_id_of,
    pre_authentication_encoding,
)
from transom.schema.record import PAYLOAD_TYPE, rfc3339
from transom.storage.secret_file import Watched, create_secret, read_secret, replace_secret

AHEAD = timedelta(seconds=60)
"""For so long the older key signs after a rotation: whoever reads the file late signs like the others."""

BEGINNING = "1970-01-01T00:00:00.000000Z"
"""Since when the first key signs, whatever the clock says."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, and since when it signs."""

    private: Ed25519PrivateKey
    since: str
    """RFC 3339, UTC."""
    endorsement: bytes | None = None
    """Signature of the key before it over this one; None for the first."""

    @cached_property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @cached_property
    def key_id(self) -> str:
        """What signatures call it."""
        return key_id_of(self.public)

    def sign(self, statement: bytes) -> bytes:
        """The signature (64 bytes) of a statement's envelope."""
        return self.private.sign(pre_authentication_encoding(PAYLOAD_TYPE, statement))

    def endorse(self, later: SigningKey) -> SigningKey:
        """That key, with this one's signature: whoever trusts this one may trust that."""
        signed = pre_authentication_encoding(KEY_TYPE, later.document)
        return replace(later, endorsement=self.private.sign(signed))

    @property
    def document(self) -> bytes:
        """What is said of it in public, canonical bytes."""
        return key_document(self.public, self.since)


class SigningKeyFile:
    """The keys in a file, read again once it changed: the command line rotates them under a server.

    Args:
        path: the file, made with a fresh key where there is none.

    Raises:
        ConfigurationError: others can read it, or it holds no keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            create_secret(path, _document([SigningKey(Ed25519PrivateKey.generate(), BEGINNING)]))
        self._watched = Watched(path, _read)

    def keys(self) -> Sequence[SigningKey]:
        """Oldest first. A file that is gone leaves those that were known.

        Raises:
            ConfigurationError: see the class.
        """
        return self._watched.latest()

    def at(self, moment: datetime) -> SigningKey:
        """The key that signs what was answered then: by the times in the file, and by no other clock."""
        first, *later = self.keys()
        answered = rfc3339(moment)
        return next((key for key in reversed(later) if key.since <= answered), first)

    def public(self) -> tuple[PublicKey, ...]:
        """What others need to verify, oldest first; each key signs until the next one does."""
        keys = self.keys()
        ends = [*(key.since for key in keys[1:]), None]
        return tuple(
            PublicKey(
                keyid=key.key_id,
                key=base64.b64encode(key.public).decode(),
                valid_from=key.since,
                valid_until=end,
                endorsement=None if key.endorsement is None else base64.b64encode(key.endorsement).decode(),
            )
            for key, end in zip(keys, ends, strict=True)
        )

    def rotate(self, now: datetime) -> SigningKey:
        """Sign with a fresh key a minute from now on. One caller at a time.

        Raises:
            ConfigurationError: the newest key signs from a later time on: a clock was, or is, wrong.
        """
        keys = self.keys()
        fresh = SigningKey(Ed25519PrivateKey.generate(), rfc3339(now + AHEAD))
        if fresh.since <= keys[-1].since:
            raise ConfigurationError(
                f"The newest key signs from {keys[-1].since} on, which is not before {fresh.since}: look at "
                "the clock."
            )
        endorsed = keys[-1].endorse(fresh)
        replace_secret(self._path, _document([*keys, endorsed]))
        return endorsed


def _document(keys: Sequence[SigningKey]) -> bytes:
    listed = [
        {
            "private": key.private.private_bytes_raw().hex(),
            "since": key.since,
            "endorsement": None if key.endorsement is None else key.endorsement.hex(),
        }
        for key in keys
    ]
    return json.dumps({"keys": listed}).encode()


def _read(path: Path) -> tuple[SigningKey, ...]:
    try:
        listed = json.loads(read_secret(path))["keys"]
        keys = tuple(
            SigningKey(
                Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["private"])),
                str(key["since"]),
                None if key["endorsement"] is None else bytes.fromhex(key["endorsement"]),
            )
            for key in listed
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} does not hold the keys that sign records; restore it from its backup."
        ) from error
    if not keys:
        raise ConfigurationError(f"{path} holds no key that signs records; restore it from its backup.")
    return keys
