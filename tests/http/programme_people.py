"""The project that people of the programme's tests are in."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import insert

from tests.http.people import BEN
from tests.offices import ADA
from transom.access.projects import embargo
from transom.storage.database import Database
from transom.storage.tables import members, projects

PROJECT = "prj_telltale"


def add_project(database: Database, *, project_id: str = PROJECT, owner: str = ADA.person_id) -> None:
    """A project with its owner, and `ben` as a member."""
    now = datetime.now(UTC)

    def write(connection) -> None:
        row = {"id": project_id, "name": "A project", "created": now, "last_sequence": 0}
        connection.execute(insert(projects).values(row))
        embargo.choose(connection, project_id, 0, by=owner, now=now)
        for person, role in ((owner, "owner"), (BEN.person_id, "member")):
            row = {"project_id": project_id, "person_id": person, "role": role, "joined": now}
            connection.execute(insert(members).values(row))

    database.write_sync(write)
