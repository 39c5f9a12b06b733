"""What somebody is to an application: in its project, its reviewer, or nobody who may know of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from transom.access.people.persons import PersonCaller
from transom.access.programme.applications import Application, load, moved_on, unknown
from transom.access.programme.obstacles import refuse_closed
from transom.access.programme.states import DECIDED, WHILE_PAUSED, Party, step
from transom.access.rights.suspensions import refuse_suspended
from transom.access.rights.trail import SYSTEM
from transom.errors import Forbidden, NotFound
from transom.schema.applications import Action, State
from transom.storage.tables import applications, members

MANAGING = frozenset({"owner", "admin"})
"""Roles in a project whose holders apply for it, and use what was granted."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller is to an application."""

    parties: frozenset[Party]
    within: bool
    """Whether they are in its project, and so see all of it."""
    barred: str | None = None
    """Why a reviewer cannot review this one."""


def role_in(connection: Connection, project_id: str, person_id: str) -> str | None:
    """A person's role in a project; None where they are not in it."""
    query = select(members.c.role).where(members.c.project_id == project_id, members.c.person_id == person_id)
    return connection.execute(query).scalar()


def require_manager(connection: Connection, project_id: str, caller: PersonCaller) -> None:
    """Pass who manages the project, while it may apply.

    Raises:
        NotFound: the caller is not in it.
        Forbidden: the caller is in it, and does not manage it.
        Suspended: the project is, or the caller.
        Conflict: the project is archived.
    """
    role = role_in(connection, project_id, caller.person_id)
    if role is None:
        raise NotFound(f"There is no project {project_id[:40]!r}, or you are not in it.", param="project")
    if role not in MANAGING:
        raise Forbidden("Only an owner or administrator of the project may do this.")
    refuse_closed(connection, project_id, by=caller.person_id, applicant=caller.person_id)


def standing_in(connection: Connection, application: Application, caller: PersonCaller) -> Standing:
    """What `caller` is to `application`.

    Raises:
        NotFound: nobody who may know of it.
        Suspended: they would review it, and are suspended.
    """
    if caller.person_id == SYSTEM:
        return Standing(frozenset({"system"}), within=False)
    role = role_in(connection, application.project_id, caller.person_id)
    if role is not None:
        party: Party = "applicant" if role in MANAGING else "member"
        return Standing(
            frozenset({party}), within=True, barred="Nobody reviews an application of their own project."
        )
    if not caller.reviews or application.submitted is None:
        raise unknown(application.id)
    refuse_suspended(connection, f"person:{caller.person_id}")
    if (barred := _conflict(connection, application, caller)) is not None:
        return Standing(frozenset(), within=False, barred=barred)
    return Standing(frozenset({"reviewer"}), within=False)


def meet(
    connection: Connection, caller: PersonCaller, application_id: str, action: Action, version: int
) -> tuple[Application, State, Party]:
    """The application that `caller` wants to do `action` to, where that leads, and as which party.

    Raises:
        NotFound: they may not know of it.
        Forbidden: somebody else may do it.
        Suspended: the caller is, or their project.
        Conflict: nobody may do it now, something stands against the application, or it is no longer at
            `version`.
    """
    application = load(connection, application_id)
    standing = standing_in(connection, application, caller)
    if action not in WHILE_PAUSED:
        refuse_closed(
            connection,
            application.project_id,
            by=caller.person_id,
            applicant=application.applicant,
            within=standing.within,
        )
    if application.version != version:
        raise moved_on(application)
    to, party = step(application.state, action, standing.parties, standing.barred)
    return application, to, party


def _conflict(connection: Connection, application: Application, caller: PersonCaller) -> str | None:
    if application.applicant == caller.person_id:
        return "Nobody reviews an application that they made, even after they left its project."
    if application.appeal_of is not None:
        declined = load(connection, application.appeal_of)
        if declined.decided_by == caller.person_id:
            return "An appeal is decided by somebody else than who declined."
    return None


def is_hidden(connection: Connection, application: Application) -> bool:
    """Whether those outside its project are not shown who asks.

    So it is until the decision; and again, of what was declined, while an appeal awaits its own.
    """
    if not application.blind:
        return False
    if application.state not in DECIDED:
        return True
    query = select(applications.c.decided).where(applications.c.appeal_of == application.id)
    appeal = connection.execute(query).one_or_none()
    return appeal is not None and appeal.decided is None
