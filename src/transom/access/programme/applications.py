"""Applications as they are kept: rows, and the events that changed them."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from transom.access.credentials.keys import base62
from transom.access.people.persons import PersonCaller
from transom.access.programme.states import Party, words
from transom.access.rights.trail import Entry, note
from transom.errors import Conflict, NotFound
from transom.schema.applications import Action, Asked, Intent, Kind, State
from transom.schema.canonical import CanonicalJson, canonical_bytes
from transom.storage.tables import application_events, applications, projects

OWN_PARTIES: frozenset[Party] = frozenset({"applicant", "member"})
"""As what people of the project act."""

CLOCKS: frozenset[Action] = frozenset({"pause", "resume"})
"""What the server does in consequence of what somebody did elsewhere; the reason is always the server's."""

PROJECT_DELETED = "Its project was deleted."
"""The server's reason for withdrawing what is open of a project that is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One application, as its row has it."""

    id: str
    project_id: str
    applicant: str
    kind: Kind
    intent: Intent
    state: State
    version: int
    events: int
    asked: Asked
    grant_id: str | None
    appeal_of: str | None
    blind: bool
    created: datetime
    changed: datetime
    submitted: datetime | None = None
    decide_by: datetime | None = None
    decided: datetime | None = None
    decided_by: str | None = None
    paused: datetime | None = None

    @property
    def tier(self) -> str:
        """The tier that is asked for."""
        return self.asked.tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to an application."""

    at: datetime
    actor: str
    party: Party
    action: Action
    state: State
    """The state after it."""
    reason: str | None = None
    details: dict[str, CanonicalJson]

    @property
    def lasting_reason(self) -> str | None:
        """The reason, unless people of the project gave it: they can have their words forgotten."""
        servers = self.action in CLOCKS or self.reason == PROJECT_DELETED
        return self.reason if servers or self.party not in OWN_PARTIES else None


def new_id(prefix: str) -> str:
    """`prefix`, and 128 random bits in base62."""
    return f"{prefix}_{base62(secrets.randbits(128), 22)}"


def load(connection: Connection, application_id: str) -> Application:
    """The application of that id.

    Raises:
        NotFound: there is none.
    """
    query = select(applications).where(applications.c.id == application_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise unknown(application_id)
    return from_row(row)


def unknown(application_id: str) -> NotFound:
    """What somebody is told who may not know of an application, or names one that is not there."""
    return NotFound(f"There is no application {application_id[:40]!r}.", param="id")


def from_row(row: RowMapping) -> Application:
    """An application from its row."""
    fields: dict[str, Any] = dict(row) | {"asked": Asked.model_validate_json(row["asked"])}
    del fields["tier"]
    return Application(**fields)


def add(connection: Connection, application: Application, event: Event) -> None:
    """Keep a new application, whose first event this is."""
    connection.execute(insert(applications).values(_row(application)))
    _append(connection, application, event)


def advance(
    connection: Connection,
    application: Application,
    version: int,
    event: Event,
    **changes: Any,  # noqa: ANN401
) -> Application:
    """Change an application by an event, if it is still at `version`.

    Two who act at once both come here with the same version; the row's lock lets one of them through.

    Raises:
        Conflict: it has moved on.
    """
    moved = replace(
        application,
        state=event.state,
        version=version + 1,
        events=application.events + 1,
        changed=event.at,
        **changes,
    )
    guard = update(applications).where(applications.c.id == application.id, applications.c.version == version)
    # The count of events goes up by comments too, which a reader of this version need not have seen.
    values = _row(moved) | {"events": applications.c.events + 1}
    if connection.execute(guard.values(values)).rowcount != 1:
        raise moved_on(load(connection, application.id))
    moved = load(connection, application.id)
    _append(connection, moved, event)
    return moved


def moved_on(application: Application) -> Conflict:
    """What whoever acts on an older version is told."""
    return Conflict(
        f"This application has moved on: it is {words(application.state)}, at version {application.version}. "
        "Read it again, and act on what it is now.",
        param="version",
    )


def append(connection: Connection, application: Application, event: Event) -> None:
    """Add an event that changes nothing but the count of them."""
    query = update(applications).where(applications.c.id == application.id)
    connection.execute(query.values(events=applications.c.events + 1))
    _append(connection, load(connection, application.id), event)


def events_of(connection: Connection, application_id: str) -> list[tuple[int, Event]]:
    """Everything that happened to an application, from the beginning."""
    query = select(application_events).where(application_events.c.application_id == application_id)
    rows = connection.execute(query.order_by(application_events.c.number)).mappings()
    return [(row["number"], _event(row)) for row in rows]


def lock_project(connection: Connection, project_id: str) -> None:
    """Keep others from deciding on the same project until this transaction ends.

    On SQLite there is but one writer at a time, and no need.
    """
    connection.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update())


def _append(connection: Connection, application: Application, event: Event) -> None:
    fields = asdict(event) | {"details": canonical_bytes(event.details).decode()}
    row = fields | {"application_id": application.id, "number": application.events}
    connection.execute(insert(application_events).values(row))
    note(
        connection,
        Entry(
            at=event.at,
            actor=event.actor,
            action=f"application.{event.action}",
            subject=application.id,
            project_id=application.project_id,
            person_id=application.applicant,
            # The trail forgets nothing, so it only says where the others are to be read.
            reason=event.lasting_reason,
            details=event.details | {"state": event.state, "event": application.events},
        ),
    )


def event_by(  # the parts of an event
    caller: PersonCaller,
    party: Party,
    action: Action,
    state: State,
    at: datetime,
    *,
    reason: str | None = None,
    details: dict[str, CanonicalJson] | None = None,
) -> Event:
    """The event of `caller` doing `action`, as `party`."""
    return Event(
        at=at,
        actor=caller.person_id,
        party=party,
        action=action,
        state=state,
        reason=reason or None,
        details=details or {},
    )


def _event(row: RowMapping) -> Event:
    return Event(
        at=row["at"],
        actor=row["actor"],
        party=row["party"],
        action=row["action"],
        state=row["state"],
        reason=row["reason"],
        details=json.loads(row["details"]),
    )


_COLUMNS = [column.name for column in applications.c]


def _row(application: Application) -> dict[str, Any]:
    kept = {name: getattr(application, name) for name in _COLUMNS}
    return kept | {"asked": application.asked.model_dump_json(exclude_none=True)}
