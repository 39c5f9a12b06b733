"""Records, kept: appended once, never changed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection, Row, RowMapping, Select, bindparam, insert, select, update

from transom.errors import InvalidRequest, NotFound
from transom.records.identifiers import cursor_after, is_record_id, sequence_of
from transom.records.sealing import open_openings, seal_openings
from transom.records.signing import SigningKey
from transom.records.statement import Draft, draft
from transom.schema.canonical import sha256
from transom.schema.record import (
    Answer,
    Envelope,
    RecordPage,
    RecordStatus,
    RecordSummary,
    RecordView,
    Signature,
    rfc3339,
)
from transom.storage.database import Database
from transom.storage.prepared import Prepared
from transom.storage.tables import microseconds, projects, records
from transom.storage.vault import DataKey, Vault
from transom.tlog.entries import Entry
from transom.tlog.sequencing import add_entries

MAX_PAGE = 100

_COLUMNS = tuple(column.name for column in records.c)
_INSERT = Prepared(insert(records))
_ADVANCE = Prepared(
    update(projects)
    # What was asked before a project was deleted must not leave a prompt in it afterwards.
    .where(projects.c.id == bindparam("project"), projects.c.deleted.is_(None))
    .values(last_sequence=projects.c.last_sequence + bindparam("count"))
    .returning(projects.c.last_sequence)
)


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
    openings: bytes | None
    """JSON; private. None once its project was deleted."""
    log_index: int
    """Of its entry in the public log."""
    signer: str | None
    """Id of the key that signed it; None of those from before records were signed."""
    signature: bytes | None

    def _envelope(self) -> Envelope:
        signed: tuple[Signature, ...] = ()
        if self.signer is not None and self.signature is not None:
            signed = (Signature(keyid=self.signer, sig=base64.b64encode(self.signature).decode()),)
        return Envelope(payload=base64.b64encode(self.statement).decode(), signatures=signed)

    def summary(self) -> RecordSummary:
        """The record in a list."""
        return RecordSummary(**_summary_fields(self))

    def view(self) -> RecordView:
        """The whole record, as its owner reads it."""
        return RecordView(
            **_summary_fields(self),
            envelope=self._envelope(),
            statement=orjson.loads(self.statement),
            openings=None if self.openings is None else orjson.loads(self.openings),
        )


class Beside(Protocol):
    """A write that belongs into the transaction of a record: both are done, or neither."""

    @property
    def together(self) -> Callable[[Connection, Sequence[Any]], None]:
        """Does this one and others with the same function, in one call.

        If it raises nothing of it may count, and it is called again for each alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record on its way: all but its number is made before the writer thread has it."""

    answer: Answer
    draft: Draft
    key: DataKey | None
    """What `sealed` was sealed by; None where the project's key was not at hand."""
    sealed: bytes | None
    beside: Beside | None = None

    def sealed_by(self, key: DataKey) -> bytes:
        """The openings, sealed by that key."""
        if self.sealed is not None and self.key is key:
            return self.sealed
        return seal_openings(key, self.answer.record_id, self.draft.openings)


class _Numbered:
    """A record that has its number in its project, and not yet its place in the log."""

    def __init__(
        self, entry: _Entry, statement: bytes, sequence: int, sealed: bytes, signer: SigningKey
    ) -> None:
        self.entry = entry
        self.statement = statement
        self.sequence = sequence
        self.sealed = sealed
        self.digest = sha256(statement)
        self.signer = signer.key_id
        self.signature = signer.sign(statement)

    def record(self, log_index: int) -> StoredRecord:
        """The whole row."""
        answer = self.entry.answer
        return StoredRecord(
            id=answer.record_id,
            project_id=answer.project_id,
            sequence=self.sequence,
            key_id=answer.key_id,
            created=answer.answered,
            model=answer.model,
            deployment=answer.deployment,
            endpoint=answer.endpoint,
            status=answer.status,
            digest=self.digest,
            statement=self.statement,
            openings=self.entry.draft.openings,
            log_index=log_index,
            signer=self.signer,
            signature=self.signature,
        )


class RecordStore:
    """The records of all projects.

    A project's records are numbered 1, 2, 3, … in the order in which they became durable. The number is
    taken in the transaction that stores the record, so there is no gap, whatever fails: a gap means that
    a record was taken away.

    Args:
        database: where they lie.
        vault: what seals their openings there.
        signing: gives the key that signs what was answered at a time.
    """

    def __init__(self, database: Database, vault: Vault, signing: Callable[[datetime], SigningKey]) -> None:
        self._database = database
        self._vault = vault
        self._signing = signing

    async def append(self, answer: Answer, beside: Beside | None = None) -> StoredRecord:
        """Make a record of `answer`; it is on disk on return, and what was written `beside` it too.

        Once this has begun, cancelling the caller does not lose the record: there is no point of
        suspension before the write is queued, unless the queue is full.

        Raises:
            NotFound: there is no such project.
            StorageError: the record is not on disk.
            ConfigurationError: the master keys do not open the project's data key.
            ValueError: see `draft`.
        """
        drafted = draft(answer)
        key = self._vault.at_hand(answer.project_id)
        sealed = None if key is None else seal_openings(key, answer.record_id, drafted.openings)
        entry = _Entry(answer, drafted, key, sealed, beside)
        return await self._database.write_together(self._append, entry)

    async def get(self, record_id: str, project_id: str) -> StoredRecord:
        """One record, for its project. For the operator, see `services.rights`: there is no other way.

        Args:
            record_id: its name.
            project_id: the project that asks.

        Raises:
            NotFound: there is none, or it is another project's.
            StorageError: its openings do not open.
        """
        stored: StoredRecord | None = None
        if is_record_id(record_id):
            stored = await self._database.read(
                lambda connection: self._find(connection, record_id, project_id)
            )
        if stored is None:
            raise NotFound(f"There is no record {record_id!r} in this project.", param="id")
        return stored

    async def at(self, log_index: int) -> StoredRecord | None:
        """The record of an entry of the log, whosever it is: for challenges, which tell nothing of it."""

        def find(connection: Connection) -> StoredRecord | None:
            query = select(records).where(records.c.log_index == log_index)
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else self._opened(connection, row)

        return await self._database.read(find)

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

        def read(connection: Connection) -> list[StoredRecord]:
            rows = connection.execute(query).mappings().all()
            return [self._opened(connection, row) for row in rows]

        return await self._database.read(read)

    async def shred(self, project_id: str) -> int:
        """Delete the openings of all the project's records, for ever; their statements stay.

        Their data keys are destroyed too, which makes what copies of the database hold unreadable.


        Returns:
            How many openings there were.

        Raises:
            StorageError: the keys are destroyed, but their bytes are still in the write-ahead log.
        """
        theirs = (records.c.project_id == project_id, records.c.openings != b"")

        def write(connection: Connection) -> int:
            self._vault.destroy(connection, project_id)
            return connection.execute(update(records).where(*theirs).values(openings=b"")).rowcount

        gone = await self._database.write(write)
        await asyncio.to_thread(self._database.scrub)
        return gone

    def _find(self, connection: Connection, record_id: str, project_id: str) -> StoredRecord | None:
        theirs = (records.c.id == record_id, records.c.project_id == project_id)
        row = connection.execute(select(records).where(*theirs)).mappings().one_or_none()
        return None if row is None else self._opened(connection, row)

    def _opened(self, connection: Connection, row: RowMapping) -> StoredRecord:
        opened = open_openings(self._vault, connection, row["project_id"], row["id"], row["openings"])
        return StoredRecord(**{**row, "openings": opened})

    def _append(self, connection: Connection, entries: Sequence[_Entry]) -> list[StoredRecord]:
        """Number and store records, those of a project in the order of `entries`."""
        by_project: dict[str, list[_Entry]] = {}
        for entry in entries:
            by_project.setdefault(entry.answer.project_id, []).append(entry)
        numbered: list[_Numbered] = []
        for project_id, own in by_project.items():
            first = _take_numbers(connection, project_id, len(own))
            key = self._vault.charge(connection, project_id, len(own))
            numbered += [
                _Numbered(
                    entry,
                    entry.draft.statement(sequence),
                    sequence,
                    entry.sealed_by(key),
                    self._signing(entry.answer.answered),
                )
                for sequence, entry in enumerate(own, first)
            ]
        _write_besides(connection, [entry.beside for entry in entries if entry.beside is not None])
        # Last: who adds to the log waits for the commit of who did before.
        index = add_entries(connection, [Entry("record", each.digest).content for each in numbered])
        stored = {
            each.entry.answer.record_id: each.record(place) for place, each in enumerate(numbered, index)
        }
        rows = [_row(stored[each.entry.answer.record_id], each.sealed) for each in numbered]
        _INSERT.execute_each(connection, rows)
        return [stored[entry.answer.record_id] for entry in entries]


def _write_besides(connection: Connection, besides: Sequence[Beside]) -> None:
    by_kind: dict[Callable[[Connection, Sequence[Any]], None], list[Beside]] = {}
    for beside in besides:
        by_kind.setdefault(beside.together, []).append(beside)
    for write, same in by_kind.items():
        write(connection, same)


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


def _take_numbers(connection: Connection, project_id: str, count: int) -> int:
    """The first of `count` numbers, which are the project's next."""
    last: int | None = _ADVANCE.returned(connection, {"project": project_id, "count": count})
    if last is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return last - count + 1


def _row(record: StoredRecord, sealed: bytes) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _COLUMNS}
    return row | {"created": microseconds(record.created), "openings": sealed}


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
