"""People: who somebody is, however they signed in, and what they may do for the operator."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from transom.access.credentials.keys import random_id
from transom.access.people.outbox import REVIEWERS
from transom.errors import Conflict, InvalidRequest, NotFound
from transom.storage.database import Database
from transom.storage.tables import identities, passkeys, people, person_roles

T = TypeVar("T")

Role = Literal["reviewer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL = re.compile(rf"(?=.{{3,254}}$)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_LABEL}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who has an account here."""

    id: str
    """`per_` and 128 random bits."""
    email: str | None
    """Proven to be theirs; None for who came by a provider alone."""
    name: str
    created: datetime
    roles: frozenset[Role] = frozenset()


def normal_email(text: str) -> str:
    """The one spelling of an address: lower case, ASCII.

    No other characters are taken: letters that look, or are lowered, like others would let one person
    receive another's mail. A domain with such letters has an ASCII spelling, beginning with `xn--`.

    Raises:
        InvalidRequest: it is no address that mail could be sent to.
    """
    email = text.strip(" ")
    if not email.isascii() or not _EMAIL.fullmatch(email := email.lower()):
        raise InvalidRequest(
            "email: write one address such as ada@example.org, in ASCII; a domain with other letters "
            "has a spelling that begins with xn--.",
            param="email",
        )
    return email


def _now() -> datetime:
    return datetime.now(UTC)


class PeopleStore:
    """The people and their roles.

    Methods that take a connection are steps of a write or a read that somebody else began.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._clock = clock

    async def get(self, person_id: str) -> Person:
        """A person by id.

        Raises:
            NotFound: there is none, or they left.
        """
        return await self._database.read(lambda connection: one(connection, person_id))

    async def rename(self, person_id: str, name: str) -> Person:
        """Change what a person is called."""

        def write(connection: Connection) -> Person:
            connection.execute(update(people).where(people.c.id == person_id).values(name=name))
            return one(connection, person_id)

        return await self._database.write(write)

    def by_email(self, connection: Connection, email: str) -> Person:
        """The person who has proven that `email` is theirs: known, or new."""
        row = row_by_email(connection, email)
        return self.new(connection, email=email) if row is None else person_of(connection, row)

    def take_email(self, connection: Connection, person_id: str, email: str) -> Person:
        """Give a person the address that they have proven to be theirs.

        Raises:
            Conflict: it is somebody else's.
        """
        row = row_by_email(connection, email)
        if row is not None and row["id"] != person_id:
            raise Conflict("Another account here has this address; sign in to that one.", param="email")
        connection.execute(update(people).where(people.c.id == person_id).values(email=email))
        return one(connection, person_id)

    def new(self, connection: Connection, *, email: str | None, name: str = "") -> Person:
        """A person who was not here before."""
        person_id = "per_" + random_id()
        row = {"id": person_id, "email": email, "name": name, "created": self._clock()}
        connection.execute(insert(people).values(row))
        return one(connection, person_id)


async def retried(database: Database, write: Callable[[Connection], T]) -> T:
    """What `write` returns; done again where another process made the same row at the same moment."""
    try:
        return await database.write(write)
    except IntegrityError:
        return await database.write(write)


def one(connection: Connection, person_id: str) -> Person:
    """A person by id.

    Raises:
        NotFound: there is none, or they left.
    """
    query = select(people).where(people.c.id == person_id, people.c.deleted.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no person {person_id[:40]!r}.")
    return person_of(connection, row)


def person_by_email(connection: Connection, email: str) -> Person:
    """A person by address.

    Raises:
        NotFound: nobody has it.
        InvalidRequest: it is none.
    """
    address = normal_email(email)
    row = row_by_email(connection, address)
    if row is None:
        raise NotFound(f"Nobody with the address {address} has signed in yet.", param="email")
    return person_of(connection, row)


def give_role(connection: Connection, person_id: str, role: Role, *, by: str, now: datetime) -> Person:
    """Let a person act as `role`; `by` is who decided. A second time changes nothing."""
    if role not in one(connection, person_id).roles:
        row = {"person_id": person_id, "role": role, "given_by": by, "given": now}
        connection.execute(insert(person_roles).values(row))
    return one(connection, person_id)


def take_role(connection: Connection, person_id: str, role: Role) -> Person:
    """End it, from the next request on."""
    theirs = (person_roles.c.person_id == person_id, person_roles.c.role == role)
    connection.execute(delete(person_roles).where(*theirs))
    return one(connection, person_id)


def with_role(connection: Connection, role: Role) -> list[Person]:
    """Everybody who may act as `role`, oldest account first."""
    query = (
        select(people)
        .join(person_roles, person_roles.c.person_id == people.c.id)
        .where(person_roles.c.role == role)
        .order_by(people.c.created, people.c.id)
    )
    return [person_of(connection, row) for row in connection.execute(query).mappings().all()]


def addresses_of(connection: Connection, recipient: str) -> list[str]:
    """Where mails for a person's id go, or for whoever reviews (`REVIEWERS`)."""
    if recipient != REVIEWERS:
        address = email_of(connection, recipient)
        return [] if address is None else [address]
    reviewing = {person.id: person for role in ROLES for person in with_role(connection, role)}
    return [person.email for person in reviewing.values() if person.email is not None]


def email_of(connection: Connection, person_id: str) -> str | None:
    """The address of a person; None for those who have none, or left."""
    found: str | None = connection.execute(
        select(people.c.email).where(people.c.id == person_id, people.c.deleted.is_(None))
    ).scalar_one_or_none()
    return found


def person_of(connection: Connection, row: RowMapping) -> Person:
    """The person of a row, with their roles."""
    query = select(person_roles.c.role).where(person_roles.c.person_id == row["id"])
    return Person(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        created=row["created"],
        roles=frozenset(connection.execute(query).scalars()),
    )


def refuse_locked_out(connection: Connection, person_id: str) -> None:
    """Undo what would leave a person without a way in.

    Raises:
        Conflict: they have no address, no identity and no passkey.
    """
    if one(connection, person_id).email is not None:
        return
    for table in (identities, passkeys):
        if connection.execute(select(table.c.id).where(table.c.person_id == person_id).limit(1)).first():
            return
    raise Conflict("It is the only way into this account; add an e-mail address first.")


def row_by_email(connection: Connection, email: str) -> RowMapping | None:
    """The row of the person who has this address."""
    return connection.execute(select(people).where(people.c.email == email)).mappings().one_or_none()
