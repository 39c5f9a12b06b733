"""The private part of a record, sealed before it reaches the database."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update

from transom.storage.database import Database
from transom.storage.tables import records
from transom.storage.vault import DataKey, Place, Vault, is_sealed

_BATCH = 500
"""Earlier records sealed in one transaction: others wait for no longer than that takes."""


def seal_openings(key: DataKey, record_id: str, openings: bytes) -> bytes:
    """Openings as they may be stored in the row of their record, and nowhere else."""
    return key.seal(_place(key.project_id, record_id), openings)


def open_openings(
    vault: Vault, connection: Connection, project_id: str, record_id: str, stored: bytes
) -> bytes | None:
    """What was sealed; None once the openings were deleted, or the project's data key was destroyed.

    Records from before there was a vault lie there as JSON, and are taken as they are: what keeps openings
    from being changed is the statement, and not the seal.

    Raises:
        StorageError: they do not open.
    """
    if not is_sealed(stored):
        return stored or None
    return vault.open(connection, _place(project_id, record_id), stored)


def count_unsealed(connection: Connection) -> int:
    """Records from before there was a vault that were not sealed since."""
    return connection.execute(select(func.count()).select_from(records).where(_unsealed())).scalar_one()


def seal_earlier(database: Database, vault: Vault) -> int:
    """Seal the records from before there was a vault, some at a time, while servers run.

    May be interrupted, and run again. Blocks.

    Returns:
        How many there were.
    """
    total = 0
    while sealed := database.write_sync(lambda connection: _seal_some(connection, vault)):
        total += sealed
    if total:
        database.scrub()
    return total


def _seal_some(connection: Connection, vault: Vault) -> int:
    found = select(records.c.id, records.c.project_id, records.c.openings).where(_unsealed())
    rows = connection.execute(found.limit(_BATCH)).all()
    for row in rows:
        sealed = seal_openings(vault.charge(connection, row.project_id, 1), row.id, row.openings)
        connection.execute(update(records).where(records.c.id == row.id).values(openings=sealed))
    return len(rows)


def _unsealed() -> ColumnElement[bool]:
    return func.substr(records.c.openings, 1, 1) == bindparam(None, b"{", unique=True)


def _place(project_id: str, record_id: str) -> Place:
    return Place(project_id, "records.openings", record_id)
