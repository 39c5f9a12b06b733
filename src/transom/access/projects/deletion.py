"""Deleting a project: its members, keys and texts go; its bare id stays, for records and the trail."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from transom.access.projects.projects import noted, require
from transom.access.projects.roles import Act
from transom.errors import InvalidRequest
from transom.storage.tables import invitations, keys, members, projects


def begin(connection: Connection, project_id: str, confirm: str, *, by: str, now: datetime) -> None:
    """Refuse everything to a project from now on. A second time changes nothing.

    Args:
        connection: to the database.
        project_id: the project.
        confirm: its name, written by whoever deletes it.
        by: the owner who does.
        now: the time.

    Raises:
        InvalidRequest: `confirm` is not the name.
        NotFound, Forbidden, Suspended: as `require`.
    """
    require(connection, project_id, Act.DELETE, by=by)
    row = connection.execute(select(projects).where(projects.c.id == project_id)).one()
    if confirm != row.name:
        raise InvalidRequest(
            "confirm: write the project's name, letter by letter, to delete it.", param="confirm"
        )
    if row.deleted is not None:
        return
    connection.execute(update(projects).where(projects.c.id == project_id).values(deleted=now))
    alive = (keys.c.project_id == project_id, keys.c.revoked.is_(None))
    connection.execute(update(keys).where(*alive).values(revoked=now))
    noted(connection, Act.DELETE, project_id, by=by, now=now, person_id=by)


def finish(connection: Connection, project_id: str) -> None:
    """Forget who was in a project that `begin` closed, and what it said of itself.

    Until then its owner can call for the deletion again: one that was cut off is taken up, and not lost.
    """
    for table in (members, invitations):
        connection.execute(delete(table).where(table.c.project_id == project_id))
    connection.execute(update(keys).where(keys.c.project_id == project_id).values(name=""))
    nothing = {"name": "", "description": "", "institution": ""}
    connection.execute(update(projects).where(projects.c.id == project_id).values(nothing))
