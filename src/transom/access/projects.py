"""Projects: who keys and records belong to. So far only those that the server makes itself."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from transom.storage.tables import projects

LOCAL = "local"
ANONYMOUS = "anonymous"

_NAMES = {LOCAL: "Local project", ANONYMOUS: "Everybody without a key"}


def ensure_project(connection: Connection, project_id: str) -> None:
    """Create the project where it does not exist yet."""
    known = connection.execute(select(projects.c.id).where(projects.c.id == project_id)).first()
    if known is None:
        name = _NAMES.get(project_id, project_id)
        row = {"id": project_id, "name": name, "created": datetime.now(UTC), "last_sequence": 0}
        connection.execute(insert(projects).values(row))
