"""One's own data: all of it, to take along; and leaving, after which it is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from transom.access.people.people import one
from transom.storage.database import Database
from transom.storage.tables import (
    identities,
    passkeys,
    people,
    person_roles,
    sessions,
    sign_in_challenges,
    sign_in_links,
)

Export = Callable[[Connection, str], Any]
"""What a column keeps of a person, as JSON; given a connection and the person's id."""

Farewell = Callable[[Connection, str, datetime], None]
"""What a column does when a person leaves; in the same transaction, given the id and the time."""

_SHOWN = {
    "roles": (person_roles, ("role", "given_by", "given")),
    "identities": (identities, ("id", "issuer", "subject", "added", "last_used")),
    "passkeys": (passkeys, ("id", "name", "created", "last_used", "sign_count")),
    "sessions": (sessions, ("id", "method", "carrier", "agent", "created", "last_seen", "expires")),
}
"""What this column keeps of a person beside the person; hashes are left out, being of no use to anybody."""


def _now() -> datetime:
    return datetime.now(UTC)


class OwnData:
    """What every column keeps of a person. Columns register here, so that none has to know another."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._clock = clock
        self._exports: dict[str, Export] = {"account": _account}
        self._farewells: list[Farewell] = []

    def on_export(self, name: str, export: Export) -> None:
        """Have `export`'s answer stand under `name` in what a person gets who asks for all about them."""
        self._exports[name] = export

    def on_delete(self, farewell: Farewell) -> None:
        """Have `farewell` called when a person leaves; raising keeps them."""
        self._farewells.append(farewell)

    async def export(self, person_id: str) -> dict[str, Any]:
        """All that is kept about a person, in one state of the database."""

        def read(connection: Connection) -> dict[str, Any]:
            return {name: export(connection, person_id) for name, export in self._exports.items()}

        return await self._database.read(read)

    async def leave(self, person_id: str) -> None:
        """Forget a person but for the bare id, at which records and the trail go on to point."""
        now = self._clock()

        def write(connection: Connection) -> None:
            email = one(connection, person_id).email
            for farewell in self._farewells:
                farewell(connection, person_id, now)
            for table in (identities, passkeys, sessions, person_roles, sign_in_challenges):
                connection.execute(delete(table).where(table.c.person_id == person_id))
            links = sign_in_links.c
            connection.execute(
                delete(sign_in_links).where((links.person_id == person_id) | (links.email == email))
            )
            gone = {"email": None, "name": "", "deleted": now}
            connection.execute(update(people).where(people.c.id == person_id).values(gone))

        await self._database.write(write)


def _account(connection: Connection, person_id: str) -> dict[str, Any]:
    person = one(connection, person_id)
    about: dict[str, Any] = {"id": person.id, "email": person.email, "name": person.name}
    about["created"] = _plain(person.created)
    for name, (table, columns) in _SHOWN.items():
        query = select(*(table.c[column] for column in columns)).where(table.c.person_id == person_id)
        rows = connection.execute(query).mappings().all()
        about[name] = [{key: _plain(value) for key, value in row.items()} for row in rows]
    return about


def _plain(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
