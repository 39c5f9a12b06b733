"""Looking over all records at once."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from transom.storage.tables import projects, records


def find_gaps(connection: Connection) -> list[str]:
    """Projects whose records are not numbered 1, 2, 3, … up to the project's counter; empty when all are."""
    counted = (
        select(projects.c.id, projects.c.last_sequence, func.count(records.c.id).label("found"))
        .select_from(projects.outerjoin(records, records.c.project_id == projects.c.id))
        .group_by(projects.c.id, projects.c.last_sequence)
    )
    # Numbers are unique in a project and never above the counter, so that counting them is enough.
    return [
        f"project {row.id} has {row.found} records where {row.last_sequence} were written"
        for row in connection.execute(counted)
        if row.found != row.last_sequence
    ]
