"""Deleting a project: its members, keys and texts go; its bare id stays, for records and the trail."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from transom.access.projects.projects import noted, require
from transom.access.projects.roles import Act
from transom.errors import InvalidRequest
from transom.storage.tables import invitations, keys, members, projects


def begin(connection: Connection, project_id: str, confirm: str, *, by: str, now: datetime) -> None:
    """Refuse everything to a project from now on, and forget what it said of itself.

    A second time changes nothing. Call `Database.scrub` after the commit.

    Args:
        connection: to the database.
        project_id: the project.
        confirm: its name, written by whoever deletes it; not asked for again, since it is forgotten here.
        by: the owner who does.
        now: the time.

    Raises:
        InvalidRequest: `confirm` is not the name.
        NotFound, Forbidden, Suspended: as `require`.
    """
    require(connection, project_id, Act.DELETE, by=by)
    row = connection.execute(select(projects).where(projects.c.id == project_id)).one()
    if row.deleted is None:
        if confirm != row.name:
            raise InvalidRequest(
                "confirm: write the project's name, letter by letter, to delete it.", param="confirm"
            )
        _close(connection, project_id, by=by, now=now)
    _forget(connection, project_id)


def finish(connection: Connection, project_id: str) -> None:
    """Forget who was in a project that `begin` closed.

    Until then its owner can call for the deletion again: one that was cut off is taken up, and not lost. So
    this comes last, after the scrub; it leaves no words to be scrubbed.
    """
    connection.execute(delete(members).where(members.c.project_id == project_id))


def _close(connection: Connection, project_id: str, *, by: str, now: datetime) -> None:
    connection.execute(update(projects).where(projects.c.id == project_id).values(deleted=now))
    alive = (keys.c.project_id == project_id, keys.c.revoked.is_(None))
    connection.execute(update(keys).where(*alive).values(revoked=now))
    noted(connection, Act.DELETE, project_id, by=by, now=now, person_id=by)


def _forget(connection: Connection, project_id: str) -> None:
    connection.execute(delete(invitations).where(invitations.c.project_id == project_id))
    connection.execute(update(keys).where(keys.c.project_id == project_id).values(name=""))
    nothing = {"name": "", "description": "", "institution": ""}
    connection.execute(update(projects).where(projects.c.id == project_id).values(nothing))
