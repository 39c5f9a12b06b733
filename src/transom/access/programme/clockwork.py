"""What time does to the programme: drafts lapse, promises fall due, grants come to their end.

`tick` may run as often as it likes, in several gateways at once: each thing is done once. Whatever was due
while no gateway ran is done with the first tick after.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from transom.access.people.persons import THE_SERVER
from transom.access.programme.applications import Application, advance, event_by, from_row
from transom.access.programme.desk import Occasion
from transom.access.programme.grants import unended_grants
from transom.access.programme.letters import remind_of_end, tell_applicants, tell_overdue
from transom.access.programme.states import step
from transom.schema.applications import State
from transom.storage.tables import applications

REMINDERS = (1, 7, 30)
"""How many days before its end a grant is announced to end, least first."""

_RUNS = applications.c.paused.is_(None)
"""No clock runs for what is paused."""


def tick(connection: Connection, occasion: Occasion) -> int:
    """Do what is due, as one step in the sense of `access.programme.desk`.

    Returns:
        How many things were done.
    """
    return (
        _lapse(connection, occasion, "draft", occasion.programme.draft_days)
        + _lapse(connection, occasion, "changes_asked", occasion.programme.changes_days)
        + _call_overdue(connection, occasion.now)
        + _announce_ends(connection, occasion.now)
    )


def _lapse(connection: Connection, occasion: Occasion, state: State, days: int) -> int:
    before = occasion.now - timedelta(days=days)
    due = _locked(connection, applications.c.state == state, applications.c.changed <= before, _RUNS)
    count = 0
    for application in due:
        to, party = step(application.state, "expire", {"system"})
        reason = f"Nothing happened to it for {days} days."
        event = event_by(THE_SERVER, party, "expire", to, occasion.now, reason=reason)
        moved = advance(connection, application, application.version, event)
        tell_applicants(connection, moved, occasion.now)
        count += 1
    return count


def _call_overdue(connection: Connection, now: datetime) -> int:
    query = select(applications).where(applications.c.decide_by < now, _RUNS)
    rows = connection.execute(query).mappings().all()
    return sum(tell_overdue(connection, from_row(row), now) for row in rows)


def _announce_ends(connection: Connection, now: datetime) -> int:
    count = 0
    for grant in unended_grants(connection, now):
        left = grant.ends - now
        # Only the nearest: who comes late to a grant that ends tomorrow is not told of next week.
        due = next((days for days in REMINDERS if left <= timedelta(days=days)), None)
        if due is not None and grant.ends - grant.starts > timedelta(days=due):
            count += remind_of_end(connection, grant, due, now)
    return count


def _locked(connection: Connection, *conditions: ColumnElement[bool]) -> Iterable[Application]:
    """Applications, each kept from others until the end of this transaction.

    Those that others have are left for the next tick. On SQLite there is but one writer at a time.
    """
    query = select(applications).where(*conditions).with_for_update(skip_locked=True)
    return [from_row(row) for row in connection.execute(query).mappings().all()]
