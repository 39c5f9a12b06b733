"""Peppers: the secret half of every stored key hash, kept outside the database."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transom.errors import ConfigurationError
from transom.storage.secret_file import create_secret, read_secret

PEPPER_BYTES = 32
_PURPOSE = b"transom-api-key-v1\0"


@dataclass(frozen=True, slots=True)
class Peppers:
    """Secrets by version. New keys use the current one; old versions stay for as long as keys use them.

    The file is trusted: whoever can read it, and the database too, can test guesses of a key, which 256
    random bits make useless; whoever can write both can make keys. Losing it makes every key invalid.
    """

    versions: Mapping[int, bytes] = field(repr=False)
    current: int

    def __post_init__(self) -> None:
        if self.current not in self.versions:
            raise ConfigurationError(f"The current pepper, version {self.current}, is missing.")
        if any(len(pepper) != PEPPER_BYTES for pepper in self.versions.values()):
            raise ConfigurationError(f"A pepper has {PEPPER_BYTES} bytes.")

    def mac(self, body: str, version: int) -> bytes:
        """HMAC-SHA-256 (RFC 2104) of a key's body, 32 bytes.

        Raises:
            KeyError: there is no such version.
        """
        return hmac.digest(self.versions[version], _PURPOSE + body.encode(), hashlib.sha256)


def generate() -> Peppers:
    """One fresh pepper, version 1."""
    return Peppers({1: secrets.token_bytes(PEPPER_BYTES)}, 1)


def load(path: Path) -> Peppers:
    """The peppers in `path`; created, for the owner's eyes only, where there is no such file.

    Raises:
        ConfigurationError: others can read the file, or it does not hold peppers.
    """
    if not path.exists():
        create_secret(path, _document(generate()))
    return _read(path)


def _read(path: Path) -> Peppers:
    content = read_secret(path)
    try:
        document = json.loads(content)
        versions = {int(version): bytes.fromhex(pepper) for version, pepper in document["peppers"].items()}
        return Peppers(versions, document["current"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} does not hold peppers; restore it from a backup.") from error


def _document(peppers: Peppers) -> bytes:
    versions = {str(version): pepper.hex() for version, pepper in peppers.versions.items()}
    return json.dumps({"current": peppers.current, "peppers": versions}).encode()
