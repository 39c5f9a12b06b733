"""New master keys in the place of old ones, while servers run.

Every step is one write, and writes run alone: two rotations, or a rotation and a server that makes a data
key, come one after the other, whichever processes they are in. So the file of master keys is read and
written within them too. Each may be interrupted at any point, and run again: a new version of the master key
is in its file before the first data key is wrapped by it, and an old one leaves the file only once no data
key needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from transom.errors import Conflict
from transom.storage.database import Database
from transom.storage.master_keys import MasterKeys, MasterKeySource
from transom.storage.tables import data_keys
from transom.storage.vault import unwrap, wrap


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    version: int
    """The master key that wraps every data key now."""
    rewrapped: int
    resumed: bool
    """Whether it finished one that was interrupted, or one that the operator began in a setting."""


@dataclass(frozen=True, slots=True)
class MasterKeyUse:
    """A version of the master key, and how many data keys it wraps."""

    version: int
    current: bool
    data_keys: int


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """What is sealed by what."""

    masters: tuple[MasterKeyUse, ...]
    destroyed: int
    """Data keys that were destroyed."""
    seals: int
    """Values that were sealed, by all keys together."""


def rotate(database: Database, source: MasterKeySource) -> Rotation:
    """Wrap every data key by a new master key; all of them or none.

    Where an earlier rotation was not finished, it is finished, and no further key is made.

    Raises:
        ConfigurationError: a data key does not open, or only the operator can make a new master key.
    """

    def write(connection: Connection) -> Rotation:
        master = source.load()
        resumed = _uses_other(connection, master)
        if not resumed:
            master = master.with_new()
            source.store(master)
        return Rotation(master.current, _rewrap(connection, master), resumed)

    return database.write_sync(write)


def forget(database: Database, source: MasterKeySource) -> int:
    """Drop the master keys that wrap nothing any more.

    Backups of the database from before the last rotation cannot be opened afterwards, unless the master keys
    of that time were backed up too.

    Returns:
        How many versions were dropped.

    Raises:
        Conflict: an old version is still in use; a rotation is to be finished first.
    """

    def write(connection: Connection) -> int:
        master = source.load()
        if _uses_other(connection, master):
            raise Conflict("Some data keys are wrapped by an older master key: rotate first.")
        old = len(master.versions) - 1
        if old:
            source.store(master.only_current())
        return old

    return database.write_sync(write)


def status(database: Database, source: MasterKeySource) -> VaultStatus:
    """What is sealed by what.

    Raises:
        ConfigurationError: the master keys cannot be read.
    """
    master = source.load()
    key = data_keys.c

    def read(connection: Connection) -> VaultStatus:
        used = select(key.master_version, func.count()).where(key.wrapped.is_not(None))
        grouped = connection.execute(used.group_by(key.master_version)).all()
        counts: dict[int, int] = {version: count for version, count in grouped}  # noqa: C416  # rows, not pairs
        gone, seals = connection.execute(
            select(func.count(key.destroyed), func.coalesce(func.sum(key.seals), 0))
        ).one()
        versions = sorted(master.versions.keys() | counts.keys())
        masters = (MasterKeyUse(each, each == master.current, counts.get(each, 0)) for each in versions)
        return VaultStatus(tuple(masters), gone, int(seals))

    return database.read_sync(read)


def _uses_other(connection: Connection, master: MasterKeys) -> bool:
    key = data_keys.c
    other = select(key.version).where(key.wrapped.is_not(None), key.master_version != master.current)
    return connection.execute(other.limit(1)).first() is not None


def _rewrap(connection: Connection, master: MasterKeys) -> int:
    key = data_keys.c
    rows = connection.execute(select(data_keys).where(key.wrapped.is_not(None))).all()
    for row in rows:
        wrapped = wrap(master, row.project_id, row.version, unwrap(master, row))
        connection.execute(
            update(data_keys)
            .where(key.project_id == row.project_id, key.version == row.version)
            .values(wrapped=wrapped, master_version=master.current)
        )
    return len(rows)
