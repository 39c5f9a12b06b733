"""Vaults for tests: master keys in memory."""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.records.signing import SigningKey
from transom.storage.master_keys import MasterKeys
from transom.storage.vault import Vault


class KeysInMemory:
    """A source of master keys that forgets them with the test."""

    place = "the test"

    def __init__(self, keys: MasterKeys | None = None) -> None:
        self.keys = keys or MasterKeys.generate()

    def load(self) -> MasterKeys:
        return self.keys

    def create(self) -> None:
        pass

    def store(self, keys: MasterKeys) -> None:
        self.keys = keys


def make_vault(**options) -> Vault:
    return Vault(KeysInMemory(), **options)


_SIGNER = SigningKey(Ed25519PrivateKey.from_private_bytes(b"s" * 32), "2026-01-01T00:00:00.000000Z")


def signing(_answered: datetime | None = None) -> SigningKey:
    """The key that signs records."""
    return _SIGNER
