"""Master keys: what data keys are wrapped by. They lie outside the database, by version."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from transom.errors import ConfigurationError
from transom.storage.secret_file import create_secret, read_secret, replace_secret

MASTER_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """Keys by version; new data keys are wrapped by the current one.

    Trusted: whoever has these and the database, or a backup of it, reads every prompt and answer. Without
    them nobody does, the operator included.
    """

    versions: Mapping[int, bytes] = field(repr=False)
    current: int

    def __post_init__(self) -> None:
        if self.current not in self.versions:
            raise ConfigurationError(f"The current master key, version {self.current}, is missing.")
        if any(len(key) != MASTER_KEY_BYTES for key in self.versions.values()):
            raise ConfigurationError(f"A master key has {MASTER_KEY_BYTES} bytes.")

    @classmethod
    def generate(cls) -> MasterKeys:
        """One fresh key, version 1."""
        return cls({1: secrets.token_bytes(MASTER_KEY_BYTES)}, 1)

    def with_new(self) -> MasterKeys:
        """These, and a fresh one of the next version, which is then the current one."""
        version = max(self.versions) + 1
        return MasterKeys({**self.versions, version: secrets.token_bytes(MASTER_KEY_BYTES)}, version)

    def only_current(self) -> MasterKeys:
        """The current one alone."""
        return MasterKeys({self.current: self.versions[self.current]}, self.current)


class MasterKeySource(Protocol):
    """Where master keys come from."""

    @property
    def place(self) -> str:
        """What to name in messages."""

    def load(self) -> MasterKeys:
        """The keys of this moment.

        Raises:
            ConfigurationError: there are none, or they cannot be read.
        """

    def create(self) -> None:
        """Make the first key, where the source can and nobody was faster."""

    def store(self, keys: MasterKeys, /) -> None:
        """Keep these from now on.

        Raises:
            ConfigurationError: this source is kept by somebody else.
        """


class MasterKeyFile:
    """A file of the server's own: `{"current": 1, "keys": {"1": "<64 hexadecimal digits>"}}`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self._path)

    def load(self) -> MasterKeys:
        """What the file holds now.

        Raises:
            ConfigurationError: it is lost, others can read it, or it does not hold master keys.
        """
        try:
            content = read_secret(self._path)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{self._path} is missing, and with it the keys to every prompt and answer in the database: "
                "restore it from its backup. A new one would open none of them."
            ) from error
        try:
            document = json.loads(content)
            versions = {int(version): bytes.fromhex(key) for version, key in document["keys"].items()}
            return MasterKeys(versions, document["current"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._path} does not hold master keys; restore it from its backup."
            ) from error

    def create(self) -> None:
        """Make the file with a fresh key, unless it is there."""
        if not self._path.exists():
            create_secret(self._path, _document(MasterKeys.generate()))

    def store(self, keys: MasterKeys) -> None:
        """Replace the file's content, whole or not at all."""
        replace_secret(self._path, _document(keys))


class GivenMasterKeys:
    """Keys from a setting, for operators who keep them in a key management system of their own.

    Args:
        text: 64 hexadecimal digits; or `version:digits`, several with commas between them, the current
            one first.

    Raises:
        ConfigurationError: it is not of that form.
    """

    place = "TRANSOM_VAULT_KEY"

    def __init__(self, text: str) -> None:
        try:
            pairs = [entry.strip().rpartition(":") for entry in text.split(",")]
            numbered = [(int(version) if colon else 1, bytes.fromhex(key)) for version, colon, key in pairs]
        except ValueError as error:
            # The text itself is a secret: no part of it is repeated.
            raise ConfigurationError(f"{self.place} is not `version:64 hexadecimal digits,…`.") from error
        if len({version for version, _ in numbered}) != len(numbered):
            raise ConfigurationError(f"{self.place} names one version twice.")
        self._keys = MasterKeys(dict(numbered), numbered[0][0])

    def load(self) -> MasterKeys:
        """The keys that the setting named when the process began."""
        return self._keys

    def create(self) -> None:
        """Nothing to do: the setting is the key."""

    def store(self, _keys: MasterKeys) -> None:
        """Refuse, for only the operator changes a setting."""
        following = max(self._keys.versions) + 1
        raise ConfigurationError(
            f"The master keys come from {self.place}, which only its owner can change: to rotate, put "
            f"`{following}:<64 hexadecimal digits>,` before what it holds, restart the server, and rotate "
            "then; to forget old versions, take them out of it."
        )


def _document(keys: MasterKeys) -> bytes:
    versions = {str(version): key.hex() for version, key in keys.versions.items()}
    return json.dumps({"current": keys.current, "keys": versions}).encode() + b"\n"
