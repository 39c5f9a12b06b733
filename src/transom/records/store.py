"""Records, kept: appended once, never changed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, RowMapping, Select, insert, select, update

from transom.errors import InvalidRequest, NotFound
from transom.records.identifiers import cursor_after, is_record_id, sequence_of
from transom.records.statement import Draft, draft
from transom.schema.canonical import sha256
from transom.schema.record import (
    Answer,
    Envelope,
    RecordPage,
    RecordStatus,
    RecordSummary,
    RecordView,
    rfc3339,
)
from transom.storage.database import Database
from transom.storage.tables import projects, records

MAX_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One row: a record as it lies in the database."""

    id: str
    project_id: str
    sequence: int
    key_id: str | None
    created: datetime
    model: str
    deployment: str
    endpoint: str
    status: RecordStatus
    digest: str
    statement: bytes
    """Canonical bytes."""
    openings: bytes
    """JSON; private. Empty once its project was deleted."""

    def summary(self) -> RecordSummary:
        """The record in a list."""
        return RecordSummary(**_summary_fields(self))

    def view(self) -> RecordView:
        """The whole record, as its owner reads it."""
        return RecordView(
            **_summary_fields(self),
            envelope=Envelope(payload=base64.b64encode(self.statement).decode()),
            statement=orjson.loads(self.statement),
            openings=orjson.loads(self.openings or b"{}"),
        )


class RecordStore:
    """The records of all projects.

    A project's records are numbered 1, 2, 3, … in the order in which they became durable. The number is
    taken in the transaction that stores the record, so there is no gap, whatever fails: a gap means that
    a record was taken away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, answer: Answer) -> StoredRecord:
        """Make a record of `answer`; it is on disk on return.

        Once this has begun, cancelling the caller does not lose the record: there is no point of
        suspension before the write is queued, unless the queue is full.

        Raises:
            NotFound: there is no such project.
            StorageError: the record is not on disk.
            ValueError: see `draft`.
        """
        return await self._database.write(_append(answer, draft(answer)))

    async def get(self, record_id: str, project_id: str) -> StoredRecord:
        """One record, for its project. For the operator, see `services.rights`: there is no other way.

        Args:
            record_id: its name.
            project_id: the project that asks.

        Raises:
            NotFound: there is none, or it is another project's.
        """
        row: RowMapping | None = None
        if is_record_id(record_id):
            query = select(records).where(records.c.id == record_id)
            row = await self._database.read(
                lambda connection: connection.execute(query).mappings().one_or_none()
            )
        if row is None or row["project_id"] != project_id:
            raise NotFound(f"There is no record {record_id!r} in this project.", param="id")
        return StoredRecord(**row)

    async def page(self, project_id: str, after: str | None = None, limit: int = 20) -> RecordPage:
        """A project's records, newest first. Records that arrive meanwhile never shift a page.

        Args:
            project_id: whose.
            after: cursor that the page before ended with; None begins with the newest.
            limit: how many at most, 1 to 100.

        Raises:
            InvalidRequest: `after` is no cursor, or `limit` is out of range.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit` must be from 1 to {MAX_PAGE}, not {limit}.", param="limit")
        query = _newest_first(project_id, after).limit(limit + 1)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        data = tuple(RecordSummary(**_summary_fields(row)) for row in rows[:limit])
        return RecordPage(data=data, after=cursor_after(data[-1].sequence) if len(rows) > limit else None)

    async def batch(self, project_id: str, after: int = 0, limit: int = MAX_PAGE) -> list[StoredRecord]:
        """Whole records of a project, oldest first: those with a number above `after`."""
        query = (
            select(records)
            .where(records.c.project_id == project_id, records.c.sequence > after)
            .order_by(records.c.sequence)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [StoredRecord(**row) for row in rows]

    async def shred(self, project_id: str) -> int:
        """Delete the openings of all the project's records, for ever; how many there were.

        Their statements stay, so that the numbering keeps no gap.
        """
        theirs = (records.c.project_id == project_id, records.c.openings != b"")
        gone = update(records).where(*theirs).values(openings=b"")
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)


def owner_of(connection: Connection, record_id: str) -> tuple[str, str | None]:
    """Project and key of a record, without a look at what is in it.

    Raises:
        NotFound: there is no such record.
    """
    query = select(records.c.project_id, records.c.key_id).where(records.c.id == record_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no record {record_id[:40]!r}.", param="id")
    return row.project_id, row.key_id


def _append(answer: Answer, prepared: Draft) -> Callable[[Connection], StoredRecord]:
    def write(connection: Connection) -> StoredRecord:
        record = _record(answer, prepared, _next_sequence(connection, answer.project_id))
        connection.execute(
            insert(records), {column.name: getattr(record, column.name) for column in records.c}
        )
        return record

    return write


def _next_sequence(connection: Connection, project_id: str) -> int:
    project = projects.c
    # What was asked before a project was deleted must not leave a prompt in it afterwards.
    living = (project.id == project_id, project.deleted.is_(None))
    advance = update(projects).where(*living).values(last_sequence=project.last_sequence + 1)
    advanced = connection.execute(advance.returning(project.last_sequence))
    sequence: int | None = advanced.scalar_one_or_none()
    if sequence is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return sequence


def _record(answer: Answer, prepared: Draft, sequence: int) -> StoredRecord:
    statement = prepared.statement(sequence)
    return StoredRecord(
        id=answer.record_id,
        project_id=answer.project_id,
        sequence=sequence,
        key_id=answer.key_id,
        created=answer.answered,
        model=answer.model,
        deployment=answer.deployment,
        endpoint=answer.endpoint,
        status=answer.status,
        digest=sha256(statement),
        statement=statement,
        openings=prepared.openings,
    )


def _newest_first(project_id: str, after: str | None) -> Select[Any]:
    # Everything but the two large columns.
    columns = [column for column in records.c if column.name not in ("statement", "openings")]
    query = select(*columns).where(records.c.project_id == project_id)
    if after is not None:
        query = query.where(records.c.sequence < sequence_of(after))
    return query.order_by(records.c.sequence.desc())


def _summary_fields(row: StoredRecord | Row[Any]) -> dict[str, Any]:
    same = ("id", "model", "deployment", "endpoint", "status", "sequence", "digest")
    return {
        **{name: getattr(row, name) for name in same},
        "project": row.project_id,
        "created": rfc3339(row.created),
    }
