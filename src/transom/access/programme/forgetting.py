"""Forgetting what the people of a project wrote when they applied, once the project is deleted.

That there were applications, what was asked for in scopes and quotas, and how each was decided stays, as the
trail does; the words are gone.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from transom.schema.applications import Asked
from transom.storage.tables import applications, grant_changes, grants

_TEXTS = ("purpose", "method", "institution", "funding", "conflicts", "ethics")


def forget_texts(connection: Connection, project_id: str) -> None:
    """Empty the texts of all applications of a project, and of its progress reports.

    Call `Database.scrub` after the commit, or their bytes stay in the write-ahead log for a while.
    """
    mine = applications.c.project_id == project_id
    for row in connection.execute(select(applications.c.id, applications.c.asked).where(mine)).all():
        asked = Asked.model_validate_json(row.asked).model_copy(update=dict.fromkeys(_TEXTS, ""))
        emptied = update(applications).where(applications.c.id == row.id)
        connection.execute(emptied.values(asked=asked.model_dump_json(exclude_none=True)))
    granted = select(grants.c.id).where(grants.c.project_id == project_id)
    reports = update(grant_changes).where(
        grant_changes.c.kind == "progress", grant_changes.c.grant_id.in_(granted)
    )
    connection.execute(reports.values(reason=None))
