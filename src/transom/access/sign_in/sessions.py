"""Sessions: that somebody is signed in, kept on the server, so that it can be ended there.

A session is made at each sign-in and never before one, so nothing that a browser brought along can become
one. It travels as it was made to: in a cookie, or as a bearer token, and is worth nothing the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, select, update

from transom.access.credentials.keys import SESSION, mint, parse
from transom.access.credentials.peppers import PepperSource
from transom.access.people.people import Person, one
from transom.errors import Forbidden, NotFound, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import sessions

LIFETIME = timedelta(days=30)
IDLE = timedelta(days=7)
RECENT = timedelta(minutes=10)
"""How long ago a sign-in may be for what needs one: leaving, and new ways in."""

_SEEN_STEP = timedelta(minutes=1)
_AGENT_LENGTH = 200

Carrier = Literal["cookie", "token"]
Method = Literal["link", "passkey", "provider", "session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What may be shown of a session."""

    id: str
    person_id: str
    carrier: Carrier
    method: Method
    """How the person signed in; `session` is one that was made from within another."""
    agent: str
    """What the client called itself."""
    created: datetime
    """When the person signed in."""
    last_seen: datetime
    """To the minute."""
    expires: datetime
    """At the latest; it ends earlier when it is not used for `IDLE`."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person and the session that they came with."""

    person: Person
    session: Session


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session just made: the only moment at which its text exists on the server."""

    person: Person
    session: Session
    text: str = field(repr=False)


def _now() -> datetime:
    return datetime.now(UTC)


class SessionStore:
    """The sessions of all people.

    Nothing is cached: a session that was ended is refused with the next request, in every process.

    Args:
        database: where they are kept, as keyed hashes.
        peppers: the keys of those hashes.
        clock: the time, in UTC.
    """

    def __init__(
        self, database: Database, peppers: PepperSource, *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._clock = clock

    def open(
        self, connection: Connection, person_id: str, *, carrier: Carrier, method: Method, agent: str
    ) -> NewSession:
        """Begin a session, as a step of the write that the sign-in is."""
        key, version, now = mint(SESSION), self._peppers.latest().current, self._clock()
        row = {
            "id": key.id,
            "person_id": person_id,
            "mac": self._peppers.latest().mac(key.body, version),
            "pepper_version": version,
            "carrier": carrier,
            "method": method,
            "agent": agent[:_AGENT_LENGTH],
            "created": now,
            "last_seen": now,
            "expires": now + LIFETIME,
        }
        connection.execute(delete(sessions).where(~self._alive(now)))
        connection.execute(insert(sessions).values(row))
        stored = _find(connection, key.id)
        assert stored is not None  # noqa: S101  # inserted a line ago
        return NewSession(one(connection, person_id), _session(stored), key.text)

    async def resolve(self, text: str, carrier: Carrier) -> SignedIn:
        """The person behind a session.

        Raises:
            Unauthenticated: it is malformed, unknown, expired or ended, or it came the other way. Which of
                these is told to nobody who lacks its secret.
        """
        key = parse(text, SESSION)

        def read(connection: Connection) -> SignedIn | None:
            row = self._proven(_find(connection, key.id), key.body)
            return None if row is None else SignedIn(one(connection, row["person_id"]), _session(row))

        found = await self._database.read(read)
        if found is None or found.session.carrier != carrier:
            raise Unauthenticated("The session is unknown, or has ended: sign in again.", code=SESSION.code)
        await self._note(found.session)
        return found

    def end_brought(self, connection: Connection, text: str | None) -> None:
        """End the session that somebody had who signs in again; anything else that they sent is nothing."""
        try:
            key = parse(text or "", SESSION)
        except Unauthenticated:
            return
        if self._proven(_find(connection, key.id), key.body) is not None:
            connection.execute(delete(sessions).where(sessions.c.id == key.id))

    async def list_of(self, person_id: str) -> list[Session]:
        """A person's sessions, the latest sign-in first."""
        query = (
            select(sessions)
            .where(sessions.c.person_id == person_id, self._alive(self._clock()))
            .order_by(sessions.c.created.desc(), sessions.c.id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_session(row) for row in rows]

    async def end(self, person_id: str, session_id: str) -> None:
        """End one session of a person, at once and everywhere.

        Raises:
            NotFound: they have no such session.
        """
        gone = delete(sessions).where(sessions.c.id == session_id, sessions.c.person_id == person_id)
        if await self._database.write(lambda connection: connection.execute(gone).rowcount) == 0:
            raise NotFound(f"You have no session {session_id[:40]!r}.")

    async def end_all(self, person_id: str) -> None:
        """End all sessions of a person, at once and everywhere."""
        gone = delete(sessions).where(sessions.c.person_id == person_id)
        await self._database.write(lambda connection: connection.execute(gone).rowcount)

    def refuse_old(self, session: Session) -> None:
        """Let only a session pass whose person signed in a moment ago.

        Raises:
            Forbidden: it is older than `RECENT`.
        """
        if self._clock() - session.created > RECENT:
            minutes = RECENT // timedelta(minutes=1)
            raise Forbidden(
                f"This needs a sign-in of the last {minutes} minutes: sign in again.",
                code="recent_sign_in_needed",
            )

    def _proven(self, row: RowMapping | None, body: str) -> RowMapping | None:
        """`row`, if the secret is right and it has not ended. An unknown id costs the same work."""
        mac, version = (None, None) if row is None else (row["mac"], row["pepper_version"])
        right = self._peppers.latest().proves(body, mac, version)
        now = self._clock()
        if not right or row is None or now >= row["expires"] or now >= row["last_seen"] + IDLE:
            return None
        return row

    def _alive(self, now: datetime) -> ColumnElement[bool]:
        return and_(sessions.c.expires > now, sessions.c.last_seen > now - IDLE)

    async def _note(self, session: Session) -> None:
        now = self._clock()
        if now - session.last_seen < _SEEN_STEP:
            return
        older = and_(sessions.c.id == session.id, sessions.c.last_seen < now)
        mark = update(sessions).where(older).values(last_seen=now)
        await self._database.write(lambda connection: connection.execute(mark).rowcount)


def _find(connection: Connection, session_id: str) -> RowMapping | None:
    return connection.execute(select(sessions).where(sessions.c.id == session_id)).mappings().one_or_none()


def _session(row: RowMapping) -> Session:
    return Session(
        id=row["id"],
        person_id=row["person_id"],
        carrier=row["carrier"],
        method=row["method"],
        agent=row["agent"],
        created=row["created"],
        last_seen=row["last_seen"],
        expires=row["expires"],
    )
