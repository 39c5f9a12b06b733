"""Pausing applications, and letting them go on: whatever is open while something stands against it waits.

To be suspended or archived is no decision on an application. So it stays in the state that it is in, is in
no queue, and no clock runs against either side: what was promised to its applicant is moved by the time that
it waited, and it does not lapse. Who brought that about, when and why is an event, and so is its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, select

from transom.access.programme.applications import PROJECT_DELETED, Application, Event, advance, from_row
from transom.access.programme.letters import tell_reviewers
from transom.access.programme.obstacles import obstacle
from transom.access.programme.states import OPEN, QUEUED, Party, step
from transom.schema.applications import Action, State
from transom.storage.tables import applications


def follow(connection: Connection, subject: str, *, actor: str, party: Party, now: datetime) -> None:
    """Pause what is open of a project or a person, or let it go on, as it now stands with them.

    For the transaction of whatever changed that.

    Args:
        connection: to the database.
        subject: `project:<id>` or `person:<id>`; a key has no applications.
        actor: who changed it.
        party: as what.
        now: the time.
    """
    for application in _open_of(connection, subject):
        found = obstacle(connection, application.project_id, application.applicant)
        if found is not None and application.paused is None:
            event = _event(application, actor, party, "pause", found.text, now)
            advance(connection, application, application.version, event, paused=now)
        elif found is None and application.paused is not None:
            _resume(connection, application, application.paused, actor, party, now)


def withdraw_all(connection: Connection, project_id: str, *, by: str, now: datetime) -> None:
    """Give up all that is open of a project that is deleted: there is nobody any more to grant it to."""
    for application in _open_of(connection, f"project:{project_id}"):
        to, party = step(application.state, "withdraw", {"applicant"})
        event = _event(application, by, party, "withdraw", PROJECT_DELETED, now, to)
        advance(connection, application, application.version, event, decide_by=None, paused=None)


def _resume(
    connection: Connection, application: Application, since: datetime, actor: str, party: Party, now: datetime
) -> None:
    promised = application.decide_by
    moved = advance(
        connection,
        application,
        application.version,
        _event(application, actor, party, "resume", "Nothing stands against it any more.", now),
        paused=None,
        decide_by=None if promised is None else promised + (now - since),
    )
    if moved.state in QUEUED:
        tell_reviewers(connection, moved, now)


def _open_of(connection: Connection, subject: str) -> Iterable[Application]:
    kind, _, name = subject.partition(":")
    if kind == "key":
        return []
    of = applications.c.project_id if kind == "project" else applications.c.applicant
    query = select(applications).where(of == name, applications.c.state.in_(OPEN))
    return [from_row(row) for row in connection.execute(query.order_by(applications.c.id)).mappings()]


def _event(  # the parts of an event
    application: Application,
    actor: str,
    party: Party,
    action: Action,
    reason: str,
    now: datetime,
    to: State | None = None,
) -> Event:
    """What happens to an application, which stays in its state where `to` names no other."""
    state = application.state if to is None else to
    return Event(at=now, actor=actor, party=party, action=action, state=state, reason=reason, details={})
