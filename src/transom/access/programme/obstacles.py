"""What stands against an application for now: its project or its applicant is suspended, or it is archived.

Each of these can end, so nothing is decided by them: `access.programme.pausing` says what is done instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from transom.access.projects.projects import ARCHIVED
from transom.access.rights.suspensions import in_force, refusal, refuse_suspended
from transom.errors import Conflict, NotFound, RequestError
from transom.storage.tables import projects


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that stands in the way."""

    text: str
    """As everybody may read it, reviewers included: without the reason of a suspension."""
    error: RequestError
    """What the people of the project are told."""


def obstacle(connection: Connection, project_id: str, applicant: str) -> Obstacle | None:
    """What stands against an application that `applicant` made in a project; None where nothing does."""
    for suspension in in_force(connection, f"project:{project_id}"):
        return Obstacle("Its project is suspended.", refusal(suspension.subject, suspension.reason))
    query = select(projects.c.archived, projects.c.deleted).where(projects.c.id == project_id)
    project = connection.execute(query).one()
    if project.deleted is not None:
        return Obstacle("Its project was deleted.", _deleted())
    if project.archived is not None:
        return Obstacle("Its project is archived.", Conflict(ARCHIVED))
    if in_force(connection, f"person:{applicant}"):
        # The reason is between them and the operator, and not for the others in the project.
        return Obstacle(
            "Who made it is suspended.",
            Conflict(
                "This application waits, since who made it is suspended. "
                "To go on without them, withdraw it and apply anew."
            ),
        )
    return None


def refuse_deleted(connection: Connection, project_id: str) -> None:
    """Let the people of a project write nothing more about it once its texts are forgotten.

    Raises:
        NotFound: it was deleted.
    """
    query = select(projects.c.deleted).where(projects.c.id == project_id)
    if connection.execute(query).scalar_one() is not None:
        raise _deleted()


def refuse_closed(
    connection: Connection, project_id: str, *, by: str, applicant: str, within: bool = True
) -> None:
    """Let nobody apply, or decide, against what stands in the way.

    Args:
        connection: to the database.
        project_id: the project of the application.
        by: whoever acts.
        applicant: who made the application.
        within: whether who acts is in the project, and may know all of it.

    Raises:
        Suspended: who acts is, or their project; with the reason.
        Conflict: the application is paused.
    """
    refuse_suspended(connection, f"person:{by}")
    found = obstacle(connection, project_id, applicant)
    if found is None:
        return
    if within:
        raise found.error
    raise Conflict(f"This application is paused. {found.text} Until that is over, nothing is decided.")


def _deleted() -> NotFound:
    return NotFound("This project was deleted.", param="project")
