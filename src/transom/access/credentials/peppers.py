"""Peppers: the secret half of every stored key hash, kept outside the database."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from transom.errors import ConfigurationError
from transom.storage.secret_file import Watched, create_secret, read_secret, replace_secret

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

    def proves(self, body: str, mac: bytes | None, version: int | None) -> bool:
        """Whether `mac` is that of `body`, in constant time.

        Args:
            body: what was sent.
            mac: what was stored; None where there is nothing of that id, which costs the same work.
            version: of the pepper that `mac` was made with.
        """
        usable = version if version is not None and version in self.versions else self.current
        right = hmac.compare_digest(self.mac(body, usable), mac or bytes(32))
        return right and mac is not None

    def latest(self) -> Peppers:
        """Itself: these do not change."""
        return self

    def rotated(self) -> Peppers:
        """These and a fresh one, which is the current one from now on."""
        version = max(self.versions) + 1
        return Peppers({**self.versions, version: secrets.token_bytes(PEPPER_BYTES)}, version)

    def without(self, version: int) -> Peppers:
        """These but for one.

        Raises:
            ConfigurationError: it is the current one, or there is none of that number.
        """
        if version == self.current:
            raise ConfigurationError(f"Pepper {version} is the current one: rotate first.")
        if version not in self.versions:
            known = ", ".join(map(str, sorted(self.versions)))
            raise ConfigurationError(f"There is no pepper {version}; there are: {known}.")
        return Peppers({each: it for each, it in self.versions.items() if each != version}, self.current)


class PepperSource(Protocol):
    """Where peppers come from."""

    def latest(self) -> Peppers:
        """The peppers as they are now."""
        ...


class PepperFile:
    """The peppers in a file, read again once it changed: the command line rotates them under a server.

    Args:
        path: the file; created where there is none, as `load` does.

    Raises:
        ConfigurationError: see `load`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        load(path)
        self._watched = Watched(path, _read)

    def latest(self) -> Peppers:
        """The peppers as they are now. A file that is gone leaves those that were known.

        Raises:
            ConfigurationError: what the file holds now is no set of peppers.
        """
        return self._watched.latest()

    def replace(self, peppers: Peppers) -> None:
        """Put `peppers` in the place of those in the file, all of them or none."""
        replace_secret(self._path, _document(peppers))


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
