"""Who reviews, and who acts for the operator; each change is in the trail."""

from __future__ import annotations

from sqlalchemy import Connection

from transom.access.people.people import ROLES, Person, Role, give_role, person_by_email, take_role, with_role
from transom.access.people.persons import PersonCaller
from transom.access.rights import trail
from transom.access.rights.trail import Entry
from transom.errors import InvalidRequest
from transom.services.office import Office


async def give(office: Office, caller: PersonCaller, email: str, role: str) -> Person:
    """Let a person act as `role`. A second time changes nothing.

    Raises:
        InvalidRequest: there is no such role, or the address is none.
        NotFound: nobody with this address has signed in yet.
    """
    known, now = _role(role), office.now()

    def write(connection: Connection) -> Person:
        person = person_by_email(connection, email)
        if known in person.roles:
            return person
        _note(connection, caller, office, "role.give", person, known)
        return give_role(connection, person.id, known, by=caller.person_id, now=now)

    return await office.database.write(write)


async def take(office: Office, caller: PersonCaller, email: str, role: str) -> Person:
    """End it; raises as `give` does."""
    known = _role(role)

    def write(connection: Connection) -> Person:
        person = person_by_email(connection, email)
        if known not in person.roles:
            return person
        _note(connection, caller, office, "role.take", person, known)
        return take_role(connection, person.id, known)

    return await office.database.write(write)


async def holders(office: Office) -> list[tuple[Role, str, str]]:
    """(role, id, address) of everybody who has one."""

    def read(connection: Connection) -> list[tuple[Role, str, str]]:
        return [
            (role, person.id, person.email or "-") for role in ROLES for person in with_role(connection, role)
        ]

    return await office.database.read(read)


def _role(name: str) -> Role:
    if name not in ROLES:
        raise InvalidRequest(
            f"There is no role {name[:40]!r}: it is one of {', '.join(ROLES)}.", param="role"
        )
    return name


def _note(
    connection: Connection, caller: PersonCaller, office: Office, action: str, person: Person, role: Role
) -> None:
    entry = Entry(
        at=office.now(),
        actor=caller.person_id,
        action=action,
        subject=person.id,
        person_id=person.id,
        details={"role": role},
    )
    trail.note(connection, entry)
