"""The trail: every administrative act and every look of the operator's at a researcher's data.

Entries are appended in the transaction of the act that they tell of, so that there is no act without its
entry. The database refuses to change or delete one (by triggers), and each entry's digest covers the one
before it, so that whoever goes around the database breaks a chain which `broken` finds. A head beside the
entries knows how many there are: the newest are missed too. Whoever can write the database and takes the
trouble can make the whole chain anew; until the log publishes its digests, only a copy tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from transom.schema.canonical import CanonicalJson, canonical_bytes, digest
from transom.storage.tables import trail, trail_head

SYSTEM = "system"
"""The actor of what nobody did: reminders, expiry."""

_GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act.

    Whoever is a member of `project_id`, or is `person_id`, may read it.
    """

    at: datetime
    actor: str
    """A person's id, `operator:<user of the machine>`, or `SYSTEM`."""
    action: str
    """Noun and verb, such as `grant.create`, `project.suspend`, `record.read`."""
    subject: str
    """Id of what was acted on."""
    project_id: str | None = None
    person_id: str | None = None
    reason: str | None = None
    """In the actor's words; who is affected reads it. Never those of a researcher about their own project,
    who may want them forgotten."""
    details: dict[str, CanonicalJson] = field(default_factory=dict)
    """What else should be known; never a secret, never a prompt."""


@dataclass(frozen=True, slots=True)
class Noted:
    """An entry, where it stands."""

    number: int
    entry: Entry
    digest: str


def note(connection: Connection, entry: Entry) -> Noted:
    """Append an entry, in the transaction of the act."""
    # Locked until the transaction ends, where a database has locks for rows.
    head = connection.execute(select(trail_head).with_for_update()).one()
    number = head.number + 1
    noted = Noted(number, entry, _digest(number, entry, head.digest))
    row = asdict(entry) | {
        "number": number,
        "details": canonical_bytes(entry.details).decode(),
        "digest": noted.digest,
    }
    connection.execute(insert(trail).values(row))
    connection.execute(update(trail_head).values(number=number, digest=noted.digest))
    return noted


def entries(
    connection: Connection,
    *,
    project_ids: tuple[str, ...] = (),
    person_id: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Noted]:
    """Entries about these projects or this person, newest first; with neither, all of them.

    Args:
        connection: to the database.
        project_ids: projects that the reader belongs to.
        person_id: the reader.
        before: only those with a lower number.
        limit: how many at most.
    """
    query = select(trail).order_by(trail.c.number.desc()).limit(limit)
    if project_ids or person_id is not None:
        query = query.where(or_(trail.c.project_id.in_(project_ids), trail.c.person_id == person_id))
    if before is not None:
        query = query.where(trail.c.number < before)
    return [_noted(row) for row in connection.execute(query).mappings()]


def broken(connection: Connection) -> Iterator[str]:
    """Where the chain does not hold: what was changed, or is missing."""
    number, before = 0, _GENESIS
    for row in connection.execute(select(trail).order_by(trail.c.number)).mappings():
        number += 1
        if row["number"] != number:
            yield f"entry {number} of the trail is missing"
            number = row["number"]
        elif row["digest"] != _digest_of(row, before):
            yield f"entry {number} of the trail was changed"
        before = row["digest"]
    yield from _head_differs(connection, number, before)


def _head_differs(connection: Connection, number: int, digest: str) -> Iterator[str]:
    head = connection.execute(select(trail_head)).one_or_none()
    if head is None:
        yield "the head of the trail is missing"
    elif head.number > number:
        yield f"the trail ends with entry {number}, and had {head.number}"
    elif (head.number, head.digest) != (number, digest):
        yield "the head of the trail is not that of its latest entry"


def _digest_of(row: RowMapping, before: str) -> str | None:
    """The digest that a row should have; None where what it holds is no entry."""
    try:
        return _digest(row["number"], _noted(row).entry, before)
    except (ValueError, TypeError):
        return None


def _digest(number: int, entry: Entry, before: str) -> str:
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    fields: dict[str, Any] = asdict(entry) | {"number": number, "at": at, "before": before}
    return digest(fields)


def _noted(row: RowMapping) -> Noted:
    entry = Entry(
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        project_id=row["project_id"],
        person_id=row["person_id"],
        reason=row["reason"],
        details=json.loads(row["details"]),
    )
    return Noted(row["number"], entry, row["digest"])
