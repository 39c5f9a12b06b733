"""The vault: private columns are sealed before they reach the database.

Three layers, so that each can be changed without touching the one below:

    master key    a few versions, outside the database (`transom.storage.master_keys`)
    data key      one or more for each project, in the table `data_keys`, wrapped by a master key
    sealed value  AES-256-GCM under a data key, a random 96-bit nonce for each value

Rotating the master key rewraps the data keys and leaves every record as it is. Destroying a project's data
keys makes all that they sealed unreadable, in the database and wherever only the database was copied to.

A sealed value is bound to its place: project, row and column are associated data, so that one which was
moved to another row does not open, as little as one in which a bit was changed.

    sealed  = 0x01 || data key version (uint32, big-endian) || nonce (12 bytes) || ciphertext || tag (16)
    wrapped = nonce (12 bytes) || encrypted data key (32) || tag (16)

NIST SP 800-38D, section 8.3 allows a key with random 96-bit nonces 2^32 invocations: then the probability
that two of them share a nonce is below 2^-32. Seals are counted in the row of the key, in the transaction
that stores what was sealed, and a key that has made 2^32 of them gets a successor. A master key wraps data
keys only, and comes nowhere near.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from transom.errors import ConfigurationError, StorageError
from transom.storage.master_keys import MasterKeys, MasterKeySource
from transom.storage.prepared import Prepared
from transom.storage.tables import data_keys

MOST_SEALS = 2**32
"""Most values that one data key seals."""

_MARK = b"\x01"
_HEAD_BYTES = 5
_NONCE_BYTES = 12
_DATA_KEY_BYTES = 32
_REMEMBERED = 4096
"""Data keys that are kept unwrapped in memory."""


_CHARGE = Prepared(
    update(data_keys)
    .where(
        data_keys.c.project_id == bindparam("project"),
        data_keys.c.version == bindparam("number"),
        # Another process may have destroyed the key, made another one in its place, or rewrapped it.
        data_keys.c.wrapped == bindparam("known"),
        data_keys.c.seals <= bindparam("most"),
    )
    .values(seals=data_keys.c.seals + bindparam("more"))
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands."""

    project_id: str
    column: str
    """Such as `records.openings`."""
    row: str


@dataclass(frozen=True, slots=True)
class DataKey:
    """One version of a project's key, unwrapped."""

    project_id: str
    version: int
    wrapped: bytes = field(repr=False)
    """As it lies in the database: what tells it from any other key."""
    _cipher: AESGCM = field(repr=False)
    _naming: bytes = field(repr=False)
    """Key of `name`; from it nobody learns the data key."""

    @classmethod
    def of(cls, project_id: str, version: int, wrapped: bytes, secret: bytes) -> DataKey:
        """The key whose bytes are `secret`."""
        naming = hmac.digest(secret, b"transom-names-v1", "sha256")
        return cls(project_id, version, wrapped, AESGCM(secret), naming)

    def name(self, column: str, value: bytes) -> bytes:
        """A name by which a private value is found: 32 bytes, the same for the same value.

        Without the key nobody can tell which value it is, or whether another project has it too.
        """
        return hmac.digest(self._naming, _parts(self.project_id, column) + value, "sha256")

    def seal(self, place: Place, data: bytes) -> bytes:
        """`data` as it may be stored at `place`, and nowhere else."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _MARK + self.version.to_bytes(4, "big")
        return head + nonce + self._cipher.encrypt(nonce, data, _bound(place, self.version))

    def open(self, place: Place, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            InvalidTag: it was not sealed by this key for this place, or was changed since.
        """
        body = sealed[_HEAD_BYTES:]
        return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], _bound(place, self.version))


def is_sealed(value: bytes) -> bool:
    """Whether `value` has the form of a sealed one. Values of JSON never do."""
    return value.startswith(_MARK)


class Vault:
    """Seals and opens. One for each process; any thread may use it.

    What it remembers of keys is never believed without the database: a value may be stored only once
    `charge` has found its key's row, in the same transaction. So a key that another process destroyed, or
    that a transaction made which was rolled back, does no harm.

    Args:
        source: where the master keys are.
        most_seals: most values that one data key seals.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        source: MasterKeySource,
        *,
        most_seals: int = MOST_SEALS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._most_seals = most_seals
        self._clock = clock
        self._master: MasterKeys | None = None
        # Single reads and writes of a dict, which threads may do side by side.
        self._current: dict[str, DataKey] = {}
        self._unwrapped: dict[bytes, DataKey] = {}

    def check(self, connection: Connection) -> None:
        """Make the first master key, where nothing was sealed yet; else see that the keys are the right ones.

        Raises:
            ConfigurationError: the master keys are lost, or they are those of another database.
        """
        used = select(data_keys).where(data_keys.c.wrapped.is_not(None))
        example = connection.execute(used.order_by(data_keys.c.created.desc()).limit(1)).first()
        if example is None:
            self._source.create()
        self._master = self._source.load()
        if example is not None:
            self._unwrap(example)

    def at_hand(self, project_id: str) -> DataKey | None:
        """The project's current key where it is remembered; for sealing before `charge`, off its thread."""
        return self._current.get(project_id)

    def charge(self, connection: Connection, project_id: str, seals: int) -> DataKey:
        """The key that seals for the project now, charged with `seals`. It is made where there is none.

        Args:
            connection: that of the write which stores what is sealed.
            project_id: whose.
            seals: how many values.

        Raises:
            ConfigurationError: the master keys do not open the data key.
        """
        for find in (self._remembered, self._newest, self._make):
            key = find(connection, project_id)
            if key is not None and self._charged(connection, key, seals):
                self._current[project_id] = key
                return key
        raise StorageError(f"{seals} values are more than a fresh data key may seal.")

    def open(self, connection: Connection, place: Place, sealed: bytes) -> bytes | None:
        """What was sealed for `place`; None once the key was destroyed.

        Raises:
            StorageError: it was changed, or belongs elsewhere.
            ConfigurationError: the master keys do not open the data key.
        """
        row = _sealing_row(connection, place.project_id, sealed)
        if row is not None and row.wrapped is None:
            return None
        if row is None:
            raise _does_not_open(place)
        try:
            return self._unwrap(row).open(place, sealed)
        except (InvalidTag, ValueError) as error:
            raise _does_not_open(place) from error

    def names(self, connection: Connection, project_id: str, column: str, value: bytes) -> list[bytes]:
        """Every name that a private value of the project can have: one for each data key that it has.

        Raises:
            ConfigurationError: the master keys do not open a data key.
        """
        kept = (data_keys.c.project_id == project_id) & data_keys.c.wrapped.is_not(None)
        rows = connection.execute(select(data_keys).where(kept)).all()
        return [self._unwrap(row).name(column, value) for row in rows]

    def destroy(self, connection: Connection, project_id: str) -> int:
        """Destroy the project's data keys: what they sealed cannot be read any more, by anybody.

        Copies of the database from before still hold them, wrapped by the master key of that time. The next
        seal makes a new key. Call `Database.scrub` after the commit.

        Returns:
            How many keys there were.
        """
        key = data_keys.c
        kept = (key.project_id == project_id) & key.wrapped.is_not(None)
        gone = connection.execute(
            update(data_keys).where(kept).values(wrapped=None, destroyed=self._clock())
        ).rowcount
        self._current.pop(project_id, None)
        self._unwrapped.clear()
        return gone

    def _remembered(self, _connection: Connection, project_id: str) -> DataKey | None:
        return self._current.get(project_id)

    def _newest(self, connection: Connection, project_id: str) -> DataKey | None:
        row = _latest(connection, project_id)
        return None if row is None or row.wrapped is None else self._unwrap(row)

    def _make(self, connection: Connection, project_id: str) -> DataKey:
        # Read again, while nobody else writes: a version that is being dropped must wrap nothing new.
        self._master = master = self._source.load()
        latest = _latest(connection, project_id)
        version = 1 if latest is None else latest.version + 1
        secret = AESGCM.generate_key(8 * _DATA_KEY_BYTES)
        wrapped = wrap(master, project_id, version, secret)
        row = {
            "project_id": project_id,
            "version": version,
            "created": self._clock(),
            "seals": 0,
            "master_version": master.current,
            "wrapped": wrapped,
        }
        connection.execute(insert(data_keys).values(row))
        return DataKey.of(project_id, version, wrapped, secret)

    def _charged(self, connection: Connection, key: DataKey, seals: int) -> bool:
        """Whether the key is in the database, and could take as many."""
        values = {
            "project": key.project_id,
            "number": key.version,
            "known": key.wrapped,
            "more": seals,
            "most": self._most_seals - seals,
        }
        return _CHARGE.execute(connection, values) == 1

    def _unwrap(self, row: Row[Any]) -> DataKey:
        key = self._unwrapped.get(row.wrapped)
        if key is None:
            secret = unwrap(self._master_for(row.master_version), row)
            key = DataKey.of(row.project_id, row.version, row.wrapped, secret)
            if len(self._unwrapped) >= _REMEMBERED:
                self._unwrapped.clear()
            self._unwrapped[row.wrapped] = key
        return key

    def _master_for(self, version: int) -> MasterKeys:
        """The master keys, read again where they lack a version: another process may have rotated them."""
        if self._master is None or version not in self._master.versions:
            self._master = self._source.load()
        return self._master


def wrap(master: MasterKeys, project_id: str, version: int, secret: bytes) -> bytes:
    """A data key as it may lie in the database, under the current master key."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    cipher = AESGCM(master.versions[master.current])
    return nonce + cipher.encrypt(nonce, secret, _bound_key(project_id, version))


def unwrap(master: MasterKeys, row: Row[Any]) -> bytes:
    """The data key in a row of `data_keys`.

    Raises:
        ConfigurationError: the master key that wrapped it is missing, or another one, or the row was changed.
    """
    key = master.versions.get(row.master_version)
    if key is None:
        raise ConfigurationError(
            f"Version {row.master_version} of the master key is missing, and the database uses it: restore "
            "the master keys from the backup that belongs to this database."
        )
    cipher = AESGCM(key)
    nonce, body = row.wrapped[:_NONCE_BYTES], row.wrapped[_NONCE_BYTES:]
    try:
        return cipher.decrypt(nonce, body, _bound_key(row.project_id, row.version))
    except (InvalidTag, ValueError) as error:
        raise ConfigurationError(
            f"The master key does not open data key {row.version} of project {row.project_id}: it is that "
            "of another database, or the row was changed. Restore the two that belong together."
        ) from error


def _sealing_row(connection: Connection, project_id: str, sealed: bytes) -> Row[Any] | None:
    """The row of the key that a sealed value names."""
    version = int.from_bytes(sealed[1:_HEAD_BYTES], "big")
    if not is_sealed(sealed) or version >= 2**31:
        return None
    key = data_keys.c
    named = select(data_keys).where(key.project_id == project_id, key.version == version)
    return connection.execute(named).first()


def _latest(connection: Connection, project_id: str) -> Row[Any] | None:
    mine = select(data_keys).where(data_keys.c.project_id == project_id)
    return connection.execute(mine.order_by(data_keys.c.version.desc()).limit(1)).first()


def _does_not_open(place: Place) -> StorageError:
    return StorageError(
        f"{place.column} of {place.row} does not open: it was changed, or is another row's. "
        "Restore it from a backup."
    )


def _bound(place: Place, version: int) -> bytes:
    return _parts("transom-sealed-v1", place.project_id, str(version), place.column, place.row)


def _bound_key(project_id: str, version: int) -> bytes:
    return _parts("transom-data-key-v1", project_id, str(version))


def _parts(*parts: str) -> bytes:
    """Each part after its length, so that no two lists share their bytes."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
