"""Peppers: the secret half of every stored key hash, kept outside the database."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transom.errors import ConfigurationError

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


def generate() -> Peppers:
    """One fresh pepper, version 1."""
    return Peppers({1: secrets.token_bytes(PEPPER_BYTES)}, 1)


def load(path: Path) -> Peppers:
    """The peppers in `path`; created, for the owner's eyes only, where there is no such file.

    Raises:
        ConfigurationError: others can read the file, or it does not hold peppers.
    """
    if not path.exists():
        _create(path, generate())
    return _read(path)


def _read(path: Path) -> Peppers:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ConfigurationError(f"{path} can be read by others: chmod 600 it, and consider new keys.")
        content = file.read()
    try:
        document = json.loads(content)
        versions = {int(version): bytes.fromhex(pepper) for version, pepper in document["peppers"].items()}
        return Peppers(versions, document["current"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} does not hold peppers; restore it from a backup.") from error


def _create(path: Path, peppers: Peppers) -> None:
    """Write it under a name of its own, then link it: nobody sees half a file, and the first one wins."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    versions = {str(version): pepper.hex() for version, pepper in peppers.versions.items()}
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"current": peppers.current, "peppers": versions}, file)
            file.flush()
            os.fsync(file.fileno())
        _link(draft, path)
    finally:
        draft.unlink()


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return  # another process was first; its peppers are the ones in use
    folder = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
