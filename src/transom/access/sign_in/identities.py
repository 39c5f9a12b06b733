"""Identities: accounts elsewhere by which people sign in, and the rule by which they find their person.

    the identity is known                                        its person
    else, asked for from within a session                        that session's person
    else, the provider is trusted, and says the address is verified,
          and a person here has proven that address              that person
    else                                                         a new person

A provider that is not trusted with addresses may claim any address: it leads to no account, and is not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from transom.access.credentials.keys import random_id
from transom.access.people.people import PeopleStore, Person, one, person_of, refuse_locked_out, row_by_email
from transom.errors import Conflict, NotFound
from transom.storage.database import Database
from transom.storage.tables import identities


@dataclass(frozen=True, slots=True)
class Claim:
    """What a provider says of somebody: an identity (issuer and subject), and perhaps more."""

    issuer: str
    subject: str
    name: str = ""
    email: str | None = None
    """Only where the provider is trusted with it, and says that it is verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An account elsewhere by which a person signs in."""

    id: str
    issuer: str
    subject: str
    added: datetime
    last_used: datetime


def _now() -> datetime:
    return datetime.now(UTC)


class IdentityStore:
    """The identities of all people.

    Methods that take a connection are steps of a write that somebody else began.
    """

    def __init__(
        self, database: Database, people: PeopleStore, *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._database = database
        self._people = people
        self._clock = clock

    async def list_of(self, person_id: str) -> list[Identity]:
        """A person's accounts elsewhere, oldest first."""
        return await self._database.read(lambda connection: _identities(connection, person_id))

    async def unlink(self, person_id: str, identity_id: str) -> None:
        """Take an identity from a person.

        Raises:
            NotFound: they have no such identity.
            Conflict: it is the only way in that they have.
        """
        theirs = (identities.c.person_id == person_id, identities.c.id == identity_id)

        def write(connection: Connection) -> None:
            if connection.execute(delete(identities).where(*theirs)).rowcount == 0:
                raise NotFound(f"You have no identity {identity_id[:40]!r}.")
            refuse_locked_out(connection, person_id)

        await self._database.write(write)

    def person_by_claim(self, connection: Connection, claim: Claim) -> Person:
        """The person that a provider's claim means: known, or new."""
        known = _find(connection, claim)
        if known is not None:
            used = update(identities).where(*_same(claim)).values(last_used=self._clock())
            connection.execute(used)
            return one(connection, known["person_id"])
        person = self._by_email(connection, claim)
        self._add(connection, claim, person.id)
        return person

    def link(self, connection: Connection, claim: Claim, person_id: str) -> Person:
        """Add an identity to a person who asked for it from within their session.

        Raises:
            Conflict: it is somebody else's.
        """
        known = _find(connection, claim)
        if known is None:
            self._add(connection, claim, person_id)
        elif known["person_id"] != person_id:
            raise Conflict("This identity belongs to another account here; sign in with it, and unlink it.")
        return one(connection, person_id)

    def _by_email(self, connection: Connection, claim: Claim) -> Person:
        row = None if claim.email is None else row_by_email(connection, claim.email)
        if row is not None:
            return person_of(connection, row)
        return self._people.new(connection, email=claim.email, name=claim.name)

    def _add(self, connection: Connection, claim: Claim, person_id: str) -> None:
        now = self._clock()
        row = {
            "id": "idy_" + random_id(),
            "issuer": claim.issuer,
            "subject": claim.subject,
            "person_id": person_id,
            "added": now,
            "last_used": now,
        }
        connection.execute(insert(identities).values(row))


def _find(connection: Connection, claim: Claim) -> RowMapping | None:
    return connection.execute(select(identities).where(*_same(claim))).mappings().one_or_none()


def _same(claim: Claim) -> tuple[Any, Any]:
    return (identities.c.issuer == claim.issuer, identities.c.subject == claim.subject)


def _identities(connection: Connection, person_id: str) -> list[Identity]:
    query = select(identities).where(identities.c.person_id == person_id).order_by(identities.c.added)
    rows = connection.execute(query).mappings().all()
    return [
        Identity(
            id=row["id"],
            issuer=row["issuer"],
            subject=row["subject"],
            added=row["added"],
            last_used=row["last_used"],
        )
        for row in rows
    ]
