"""Who signs records: keys of Ed25519, the newest of which signs (https://github.com/secure-systems-lab/dsse).

Older ones stay in the file, so that what they have signed verifies; each is known by a digest of its public
half.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import ConfigurationError
from transom.schema.envelopes import PublicKey, key_id_of, pre_authentication_encoding
from transom.schema.record import PAYLOAD_TYPE, rfc3339
from transom.storage.secret_file import Watched, create_secret, read_secret, replace_secret


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and since when it signs."""

    private: Ed25519PrivateKey
    since: str
    """RFC 3339, UTC."""

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        """What signatures call it."""
        return key_id_of(self.public)

    def sign(self, statement: bytes) -> bytes:
        """The signature (64 bytes) of a statement's envelope."""
        return self.private.sign(pre_authentication_encoding(PAYLOAD_TYPE, statement))


class SigningKeyFile:
    """The keys in a file, read again once it changed: the command line rotates them under a server.

    Args:
        path: the file, made with a fresh key where there is none.
        now: since when that key signs.

    Raises:
        ConfigurationError: others can read it, or it holds no keys.
    """

    def __init__(self, path: Path, now: datetime) -> None:
        self._path = path
        if not path.exists():
            create_secret(path, _document([SigningKey(Ed25519PrivateKey.generate(), rfc3339(now))]))
        self._watched = Watched(path, _read)

    def keys(self) -> Sequence[SigningKey]:
        """Oldest first. A file that is gone leaves those that were known.

        Raises:
            ConfigurationError: see the class.
        """
        return self._watched.latest()

    @property
    def current(self) -> SigningKey:
        """The one that signs."""
        return self.keys()[-1]

    def public(self) -> tuple[PublicKey, ...]:
        """What others need to verify, oldest first; each key was in use until the next one was."""
        keys = self.keys()
        ends = [*(key.since for key in keys[1:]), None]
        return tuple(
            PublicKey(
                keyid=key.key_id,
                key=base64.b64encode(key.public).decode(),
                valid_from=key.since,
                valid_until=end,
            )
            for key, end in zip(keys, ends, strict=True)
        )

    def rotate(self, now: datetime) -> SigningKey:
        """Sign with a fresh key from now on."""
        fresh = SigningKey(Ed25519PrivateKey.generate(), rfc3339(now))
        replace_secret(self._path, _document([*self.keys(), fresh]))
        return fresh


def _document(keys: Sequence[SigningKey]) -> bytes:
    listed = [{"private": key.private.private_bytes_raw().hex(), "since": key.since} for key in keys]
    return json.dumps({"keys": listed}).encode()


def _read(path: Path) -> tuple[SigningKey, ...]:
    try:
        listed = json.loads(read_secret(path))["keys"]
        keys = tuple(
            SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["private"])), str(key["since"]))
            for key in listed
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} does not hold the keys that sign records; restore it from its backup."
        ) from error
    if not keys:
        raise ConfigurationError(f"{path} holds no key that signs records; restore it from its backup.")
    return keys
