"""Applications as their readers may see them; in a blind review, reviewers do not see who asks."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from transom.access.people.persons import PersonCaller
from transom.access.programme.applications import Application, Event, events_of
from transom.access.programme.standing import Standing, is_hidden, standing_in
from transom.access.programme.states import possible
from transom.schema.applications import ApplicationSummary, ApplicationView, AskedView, EventView

SOMEBODY = "applicant"
"""What a blind review calls whoever is in the project."""


def moment(at: datetime) -> str:
    """A moment in the spelling of RFC 3339, to the second."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _moment(at: datetime | None) -> str | None:
    return None if at is None else moment(at)


def view(
    connection: Connection, application: Application, caller: PersonCaller, now: datetime
) -> ApplicationView:
    """A whole application, for a caller who may read it.

    Raises:
        NotFound: they may not know of it.
    """
    standing = standing_in(connection, application, caller)
    blind = not standing.within and is_hidden(connection, application)
    asked = application.asked.model_dump(exclude={"institution"} if blind else set())
    return ApplicationView(
        **_summary(application, standing, now, blind=blind).model_dump(),
        asked=AskedView(**{"institution": None} | asked),
        events=[
            _event(number, event, blind=blind) for number, event in events_of(connection, application.id)
        ],
    )


def summary(
    connection: Connection, application: Application, caller: PersonCaller, now: datetime
) -> ApplicationSummary:
    """An application in a list, for a caller who may read it.

    Raises:
        NotFound: they may not know of it.
    """
    standing = standing_in(connection, application, caller)
    blind = not standing.within and is_hidden(connection, application)
    return _summary(application, standing, now, blind=blind)


def _summary(
    application: Application, standing: Standing, now: datetime, *, blind: bool
) -> ApplicationSummary:
    promised = application.decide_by if application.paused is None else None
    return ApplicationSummary(
        id=application.id,
        kind=application.kind,
        intent=application.intent,
        state=application.state,
        version=application.version,
        tier=application.tier,
        project=None if blind else application.project_id,
        applicant=None if blind else application.applicant,
        # Whoever reads the declined application may know its applicant.
        appeal_of=None if blind else application.appeal_of,
        grant=None if blind else application.grant_id,
        created=moment(application.created),
        changed=moment(application.changed),
        submitted=_moment(application.submitted),
        decide_by=_moment(promised),
        paused=_moment(application.paused),
        overdue=promised is not None and now > promised,
        decided=_moment(application.decided),
        blind=blind,
        may=possible(application.state, standing.parties, paused=application.paused is not None),
    )


def _event(number: int, event: Event, *, blind: bool) -> EventView:
    masked = blind and event.party in {"applicant", "member"}
    return EventView(
        number=number,
        at=moment(event.at),
        actor=SOMEBODY if masked else event.actor,
        action=event.action,
        state=event.state,
        reason=event.reason,
        # Of what a project's own people did, details name grants and other applications.
        details={} if masked else event.details,
    )
