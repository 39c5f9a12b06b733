"""Suspensions: a person decides, gives a reason, and whoever is affected reads it.

Nothing here is ever called by a limit, a schedule or a detector: those may tell a person of the operator's,
and the person decides. A key, a person or a project can be suspended; the trail keeps the history, and the
table only what is in force.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select

from transom.access.rights.trail import SYSTEM, Entry, note
from transom.errors import Conflict, InvalidRequest, NotFound, Suspended
from transom.storage.tables import keys, members, people, projects, suspensions

_SUBJECT = re.compile(r"(key|person|project):([0-9A-Za-z_-]{1,64})")
MAX_REASON = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """What is in force against something."""

    subject: str
    """`key:<id>`, `person:<id>` or `project:<id>`."""
    reason: str
    """As its author put it."""
    since: datetime


@dataclass(frozen=True, slots=True)
class Affected:
    """Whom a suspension touches."""

    project_id: str | None
    person_ids: tuple[str, ...]


def refusal(subject: str, reason: str) -> Suspended:
    """The error that a request meets; it tells the reason, and who can undo it."""
    kind = subject.partition(":")[0]
    return Suspended(
        f"This {kind} was suspended by the operator: {reason} (To have it lifted, write to them.)"
    )


def suspend(connection: Connection, subject: str, *, actor: str, reason: str, now: datetime) -> Affected:
    """Refuse all requests of a key, a person or a project from now on, within two seconds everywhere.

    Raises:
        InvalidRequest: `subject` names nothing that can be suspended, or there is no reason.
        NotFound: there is no such thing.
        Conflict: it is suspended already.
    """
    reason = checked_reason(reason)
    affected = _affected(connection, subject)
    if in_force(connection, subject):
        raise Conflict(f"{subject} is suspended already; lift that first.")
    row = {"subject": subject, "actor": actor, "reason": reason, "since": now}
    connection.execute(insert(suspensions).values(row))
    _note(connection, "suspend", subject, affected, actor=actor, reason=reason, now=now)
    return affected


def lift(connection: Connection, subject: str, *, actor: str, reason: str, now: datetime) -> Affected:
    """Undo a suspension; raises as `suspend` does, and Conflict where there is none."""
    reason = checked_reason(reason)
    affected = _affected(connection, subject)
    gone = connection.execute(delete(suspensions).where(suspensions.c.subject == subject)).rowcount
    if not gone:
        raise Conflict(f"{subject} is not suspended.")
    _note(connection, "lift", subject, affected, actor=actor, reason=reason, now=now)
    return affected


def in_force(connection: Connection, *subjects: str) -> list[Suspension]:
    """What is in force against any of these."""
    query = select(suspensions).where(suspensions.c.subject.in_(subjects)).order_by(suspensions.c.subject)
    return [
        Suspension(subject=row["subject"], reason=row["reason"], since=row["since"])
        for row in connection.execute(query).mappings()
    ]


def refuse_suspended(connection: Connection, *subjects: str) -> None:
    """Let nobody through against whom something is in force.

    Raises:
        Suspended: with the reason.
    """
    for suspension in in_force(connection, *subjects):
        raise refusal(suspension.subject, suspension.reason)


def checked_reason(reason: str) -> str:
    """The reason, without white space around it.

    Raises:
        InvalidRequest: there is none, or more of it than anybody will read.
    """
    reason = reason.strip()
    if not reason or len(reason) > MAX_REASON:
        raise InvalidRequest(
            f"reason: say why, in 1 to {MAX_REASON} characters; who is affected reads it.", param="reason"
        )
    return reason


def _note(
    connection: Connection,
    act: str,
    subject: str,
    affected: Affected,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    if actor == SYSTEM:
        raise ValueError("only a person suspends, or lifts a suspension")
    kind, _, name = subject.partition(":")
    entry = Entry(
        at=now,
        actor=actor,
        action=f"{kind}.{act}",
        subject=name,
        project_id=affected.project_id,
        person_id=None if kind == "project" else next(iter(affected.person_ids), None),
        reason=reason,
    )
    note(connection, entry)


def _affected(connection: Connection, subject: str) -> Affected:
    match = _SUBJECT.fullmatch(subject)
    if match is None:
        raise InvalidRequest(
            f"{subject[:100]!r} cannot be suspended: name key:ID, person:ID or project:ID.", param="subject"
        )
    kind, name = match.groups()
    found = {"key": _of_key, "person": _of_person, "project": _of_project}[kind](connection, name)
    if found is None:
        raise NotFound(f"There is no {kind} {name!r}.", param="subject")
    return found


def _of_key(connection: Connection, key_id: str) -> Affected | None:
    query = select(keys.c.project_id, keys.c.person_id).where(keys.c.id == key_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else Affected(row.project_id, (row.person_id,) if row.person_id else ())


def _of_person(connection: Connection, person_id: str) -> Affected | None:
    seen: Any = or_(
        select(members.c.person_id).where(members.c.person_id == person_id).exists(),
        select(keys.c.person_id).where(keys.c.person_id == person_id).exists(),
        # Who has but an account could make a project next.
        select(people.c.id).where(people.c.id == person_id, people.c.deleted.is_(None)).exists(),
    )
    return Affected(None, (person_id,)) if connection.execute(select(seen)).scalar_one() else None


def _of_project(connection: Connection, project_id: str) -> Affected | None:
    if connection.execute(select(projects.c.id).where(projects.c.id == project_id)).first() is None:
        return None
    query = select(members.c.person_id).where(members.c.project_id == project_id)
    return Affected(project_id, tuple(connection.execute(query.order_by(members.c.person_id)).scalars()))
