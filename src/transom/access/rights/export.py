"""Everything that access keeps of a project or a person, to take along: one JSON object for each row.

Left out are keyed hashes, which are of use to nobody, and the texts of the terms, which anybody can read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, or_, select

from transom.schema.record import rfc3339
from transom.storage.tables import (
    acceptances,
    application_events,
    applications,
    embargoes,
    grant_changes,
    grants,
    invitations,
    keys,
    members,
    projects,
    suspensions,
    trail,
)

_HIDDEN = {"mac", "pepper_version", "last_sequence"}
_JSON = {"asked", "scopes", "models", "quotas", "details"}
"""Columns that hold JSON as text."""


def project_lines(connection: Connection, project_id: str) -> Iterator[dict[str, Any]]:
    """All that access keeps of a project, its kind in `kind`."""
    yield from _lines(connection, "project", projects, projects.c.id == project_id)
    for kind, table in (
        ("member", members),
        ("embargo", embargoes),
        ("invitation", invitations),
        ("key", keys),
        ("application", applications),
        ("grant", grants),
        ("trail", trail),
    ):
        yield from _lines(connection, kind, table, table.c.project_id == project_id)
    applied = select(applications.c.id).where(applications.c.project_id == project_id)
    events = application_events.c.application_id.in_(applied)
    yield from _lines(connection, "application_event", application_events, events)
    granted = select(grants.c.id).where(grants.c.project_id == project_id)
    yield from _lines(connection, "grant_change", grant_changes, grant_changes.c.grant_id.in_(granted))
    theirs = select("key:" + keys.c.id).where(keys.c.project_id == project_id)
    subject = suspensions.c.subject
    against = or_(subject == f"project:{project_id}", subject.in_(theirs))
    yield from _lines(connection, "suspension", suspensions, against)


def person(connection: Connection, person_id: str) -> dict[str, list[dict[str, Any]]]:
    """All that projects, keys, terms and the trail keep of a person."""
    theirs = select("key:" + keys.c.id).where(keys.c.person_id == person_id)
    subject = suspensions.c.subject
    about = (trail.c.person_id == person_id) | (trail.c.actor == person_id)
    parts: dict[str, tuple[Table, ColumnElement[bool]]] = {
        "memberships": (members, members.c.person_id == person_id),
        "keys": (keys, keys.c.person_id == person_id),
        "invitations": (invitations, invitations.c.invited_by == person_id),
        "applications": (applications, applications.c.applicant == person_id),
        "acceptances": (acceptances, acceptances.c.person_id == person_id),
        "suspensions": (suspensions, or_(subject == f"person:{person_id}", subject.in_(theirs))),
        "trail": (trail, about),
    }
    return {name: list(_lines(connection, None, *part)) for name, part in parts.items()}


def _lines(
    connection: Connection, kind: str | None, table: Table, where: ColumnElement[bool]
) -> Iterator[dict[str, Any]]:
    shown = [column for column in table.c if column.name not in _HIDDEN]
    query = select(*shown).where(where).order_by(*table.primary_key.columns)
    for row in connection.execute(query).mappings():
        # Plain text: the names of columns are a kind of it that JSON writers refuse.
        line = {str(column.name): _plain(column, row[column.name]) for column in shown}
        yield line if kind is None else {"kind": kind} | _without_kind(line, kind)


def _without_kind(line: dict[str, Any], kind: str) -> dict[str, Any]:
    """What a row calls its kind is another thing than which kind of row it is."""
    return {f"{kind}_kind" if name == "kind" else name: value for name, value in line.items()}


def _plain(column: Column[Any], value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if column.name in _JSON and isinstance(value, str):
        return json.loads(value)
    return value
