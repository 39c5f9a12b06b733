"""Forgetting what the people of a project wrote when they applied, once the project is deleted.

That there were applications and grants, what was asked for in scopes and quotas, how each was decided, and
what reviewers and operators said of it stays, as the trail does. The words of the project's people are gone.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select, update

from transom.access.people.persons import MACHINE
from transom.access.programme.applications import CLOCKS, OWN_PARTIES, PROJECT_DELETED
from transom.access.programme.standing import MANAGING
from transom.schema.applications import Asked
from transom.storage.tables import (
    application_events,
    applications,
    grant_changes,
    grants,
    members,
    person_roles,
)

_TEXTS = ("purpose", "method", "institution", "funding", "conflicts", "ethics")


def forget_texts(connection: Connection, project_id: str) -> None:
    """Empty what people of a project wrote in its applications, and about them and its grants.

    While its members are known: of those who ended a grant, they tell its people from operators. Call
    `Database.scrub` after the commit, or the bytes stay in the write-ahead log for a while.
    """
    _forget_asked(connection, project_id)
    _forget_events(connection, project_id)
    _forget_changes(connection, project_id)


def _forget_asked(connection: Connection, project_id: str) -> None:
    mine = applications.c.project_id == project_id
    for row in connection.execute(select(applications.c.id, applications.c.asked).where(mine)).all():
        asked = Asked.model_validate_json(row.asked).model_copy(update=dict.fromkeys(_TEXTS, ""))
        emptied = update(applications).where(applications.c.id == row.id)
        connection.execute(emptied.values(asked=asked.model_dump_json(exclude_none=True)))


def _forget_events(connection: Connection, project_id: str) -> None:
    """The SQL of `Event.lasting_reason`."""
    applied = select(applications.c.id).where(applications.c.project_id == project_id)
    own = update(application_events).where(
        application_events.c.application_id.in_(applied),
        application_events.c.party.in_(OWN_PARTIES),
        application_events.c.action.not_in(CLOCKS),
        application_events.c.reason != PROJECT_DELETED,
    )
    connection.execute(own.values(reason=None))


def _forget_changes(connection: Connection, project_id: str) -> None:
    granted = select(grants.c.id).where(grants.c.project_id == project_id)
    given_up = (grant_changes.c.kind == "end") & ~_by_operator(project_id)
    own = update(grant_changes).where(
        grant_changes.c.grant_id.in_(granted), (grant_changes.c.kind == "progress") | given_up
    )
    connection.execute(own.values(reason=None))


def _by_operator(project_id: str) -> ColumnElement[bool]:
    """Whether a grant was ended for the operator, and not by somebody who managed the project."""
    actor = grant_changes.c.actor
    managing = select(members.c.person_id).where(
        members.c.project_id == project_id, members.c.role.in_(MANAGING)
    )
    operators = select(person_roles.c.person_id).where(person_roles.c.role == "operator")
    return actor.startswith(MACHINE) | (actor.in_(operators) & actor.not_in(managing))
