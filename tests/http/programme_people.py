"""People who are signed in because a test says so, and the project that one of them owns."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import insert

from transom.access import embargo
from transom.access.persons import PersonCaller
from transom.errors import Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import members, projects

ROLES = {"ria": {"reviewer"}, "rob": {"reviewer"}, "oli": {"operator"}}
PROJECT = "prj_telltale"


async def person_of(request) -> PersonCaller:
    """Whoever the session `ts_NAME` is of."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind != "Bearer" or not token.startswith("ts_"):
        raise Unauthenticated("Sign in first.")
    name = token.removeprefix("ts_")
    return PersonCaller(f"per_{name}", frozenset(ROLES.get(name, ())))


def session(name: str) -> dict[str, str]:
    """The headers of somebody's requests."""
    return {"authorization": f"Bearer ts_{name}"}


def add_project(database: Database, *, project_id: str = PROJECT, owner: str = "per_ada") -> None:
    """A project with its owner, and `ben` as a member."""
    now = datetime.now(UTC)

    def write(connection) -> None:
        row = {"id": project_id, "name": "A project", "created": now, "last_sequence": 0}
        connection.execute(insert(projects).values(row))
        embargo.choose(connection, project_id, 0, by=owner, now=now)
        for person, role in ((owner, "owner"), ("per_ben", "member")):
            row = {"project_id": project_id, "person_id": person, "role": role, "joined": now}
            connection.execute(insert(members).values(row))

    database.write_sync(write)
