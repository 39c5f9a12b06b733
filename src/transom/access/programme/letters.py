"""What the programme writes to people.

Mails say what happened, and where to read it. They carry no reasons and no names, since a mail is read by
more than its recipient; and nothing but ASCII, so that it arrives as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, select

from transom.access.people.outbox import REVIEWERS, Mail, owe
from transom.access.programme.applications import Application
from transom.access.programme.grants import Grant
from transom.access.programme.standing import MANAGING
from transom.access.programme.states import words
from transom.schema.applications import State
from transom.storage.tables import members

_NEWS: dict[State, str] = {
    "changes_asked": "A reviewer asks for changes. Answer them, and submit it again.",
    "approved": "It was approved.",
    "declined": "It was declined. The reasons are there to read, and you may appeal once.",
    "expired": "It lapsed, because nothing happened to it for too long. You may apply again.",
}


def tell_applicants(connection: Connection, application: Application, now: datetime) -> None:
    """Tell whoever manages the project what its application has become."""
    text = (
        f"News of application {application.id} (tier {application.tier}):\n\n{_NEWS[application.state]}\n\n"
        f"Read it with GET /v1/applications/{application.id}.\n"
    )
    subject = f"Application {application.id}: {words(application.state)}"
    for person_id in _people_in(connection, application.project_id, managing=True):
        name = f"{application.id}:{application.version}:{person_id}"
        owe(connection, Mail(name, person_id, subject, text), now)


def tell_reviewers(connection: Connection, application: Application, now: datetime) -> None:
    """Tell reviewers that an application waits."""
    text = (
        f"Application {application.id} (tier {application.tier}, {application.kind}) waits for review.\n"
        f"{_promise(application)}\nThe queue is at GET /v1/reviews.\n"
    )
    mail = Mail(
        f"{application.id}:{application.version}:{REVIEWERS}", REVIEWERS, "An application waits", text
    )
    owe(connection, mail, now)


def tell_overdue(connection: Connection, application: Application, now: datetime) -> bool:
    """Tell reviewers that the promise to an applicant is broken; once for each promise."""
    text = (
        f"Application {application.id} (tier {application.tier}) was to be decided, and is not.\n"
        f"{_promise(application)}\nThe queue is at GET /v1/reviews.\n"
    )
    name = f"{application.id}:{application.decide_by:%Y%m%d}:overdue"
    return owe(connection, Mail(name, REVIEWERS, "A decision is overdue", text), now)


def remind_of_end(connection: Connection, grant: Grant, days: int, now: datetime) -> int:
    """Tell everybody in a project that its grant ends in so many days; once for each end and number.

    Returns:
        How many mails are owed for it now that were not before.
    """
    text = (
        f"Grant {grant.id} (tier {grant.tier}) is in force until {grant.ends:%Y-%m-%d %H:%M} UTC.\n\n"
        "To go on after that, apply for a renewal: transom apply --kind renewal.\n"
    )
    subject = f"Grant {grant.id} ends in {days} day{'s' if days != 1 else ''}"
    # The end is in the name: what was renewed is announced again.
    about = f"{grant.id}:{grant.ends:%Y%m%d}:{days}"
    people = list(_people_in(connection, grant.project_id))
    return sum(owe(connection, Mail(f"{about}:{person}", person, subject, text), now) for person in people)


def tell_ended(connection: Connection, grant: Grant, now: datetime) -> None:
    """Tell everybody in a project that its grant was ended before its time."""
    text = (
        f"Grant {grant.id} (tier {grant.tier}) was ended on {now:%Y-%m-%d %H:%M} UTC.\n\n"
        f"The reason is there to read, with GET /v1/grants/{grant.id}.\n"
    )
    for person in _people_in(connection, grant.project_id):
        owe(connection, Mail(f"{grant.id}:ended:{person}", person, f"Grant {grant.id} was ended", text), now)


def _promise(application: Application) -> str:
    at = application.decide_by
    return "" if at is None else f"A decision is promised by {at:%Y-%m-%d %H:%M} UTC.\n"


def _people_in(connection: Connection, project_id: str, *, managing: bool = False) -> Iterator[str]:
    query = select(members.c.person_id).where(members.c.project_id == project_id)
    if managing:
        query = query.where(members.c.role.in_(MANAGING))
    yield from connection.execute(query.order_by(members.c.person_id)).scalars().all()
