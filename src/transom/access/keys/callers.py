"""From the key in a request to the caller behind it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, or_, select, update

from transom.access.credentials.keys import NO_KEY, Key, parse
from transom.access.credentials.peppers import PepperSource
from transom.access.keys import issuing
from transom.access.keys.issuing import KeyInfo, NewKey, Wish, quotas_of, scopes_of
from transom.access.projects.projects import ANONYMOUS, LOCAL, ensure_project
from transom.access.rights.suspensions import refusal
from transom.access.rights.terms import first_unaccepted
from transom.errors import Conflict, TermsNotAccepted, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import keys, members, projects, suspensions

CACHE_SECONDS = 1.0
"""How long a verified key is believed without a look at the database. A revoked key must be refused
everywhere within two seconds."""
CACHE_ENTRIES = 1024
LAST_USED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    project_id: str
    key_id: str | None
    """None for the anonymous tier."""
    person_id: str | None = None
    """None for the operator's own keys, and for the anonymous tier."""
    scopes: frozenset[str] | None = None
    """Those that the key was narrowed to; None for all of the grant."""
    key_quotas: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Limits of the key's own, by budget, beside those of the grant."""
    retires: datetime | None = None
    """When the key stops working, having been rotated."""
    unaccepted: str | None = None
    """A version of the terms that the person has yet to accept."""
    archived: bool = False
    """Whether the project takes nothing new."""

    @property
    def anonymous(self) -> bool:
        """Whether no key was sent."""
        return self.key_id is None

    @property
    def is_operators(self) -> bool:
        """Whether the key is one of the operator's own, made on the server's machine: it has no limits."""
        return self.key_id is not None and self.person_id is None

    def require_open(self) -> None:
        """Pass who may ask for something new; reading what was asked before needs less.

        Raises:
            TermsNotAccepted: the message says which, and how.
            Conflict: the project is archived.
        """
        if self.unaccepted is not None:
            raise TermsNotAccepted(
                f"Before you ask anything new, read and accept {self.unaccepted}: "
                f"GET /v1/terms/{self.unaccepted}, then POST /v1/terms/{self.unaccepted}/accept, "
                f"or `transom terms accept {self.unaccepted}`."
            )
        if self.archived:
            raise Conflict("The project is archived; its owner can open it again.")


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    until: float
    """Monotonic seconds."""
    ends: datetime | None


def _now() -> datetime:
    return datetime.now(UTC)


class KeyStore:
    """The keys of all projects. Belongs to one event loop.

    Args:
        database: where they are kept, as keyed hashes.
        peppers: the keys of those hashes.
        allow_anonymous: whether a request without a key is let in, to the project `anonymous`.
        clock: the time, in UTC; decides expiry.
        ticks: monotonic seconds; decide how old a cached verification is.
    """

    def __init__(
        self,
        database: Database,
        peppers: PepperSource,
        *,
        allow_anonymous: bool = False,
        clock: Callable[[], datetime] = _now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._allow_anonymous = allow_anonymous
        self._clock = clock
        self._ticks = ticks
        self._verified: dict[bytes, _Verified] = {}
        self._used: dict[str, datetime] = {}
        self._anonymous_exists = False

    async def create(
        self, project_id: str = LOCAL, name: str = "", expires_at: datetime | None = None
    ) -> NewKey:
        """Make a key of the operator's own, and the project with its first one."""
        wish = Wish(project_id=project_id, name=name, expires=expires_at)
        peppers, now = self._peppers.latest(), self._clock()
        return await self._database.write(
            lambda connection: issuing.issue(connection, peppers, wish, now=now)
        )

    async def list_keys(self, project_id: str = LOCAL) -> list[KeyInfo]:
        """A project's keys, revoked and expired ones too, oldest first."""
        return await self._database.read(lambda connection: issuing.list_of_project(connection, project_id))

    async def revoke(self, key_id: str) -> KeyInfo:
        """Refuse the key from now on: here at once, in other processes within `CACHE_SECONDS`.

        A second time changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        now = self._clock()
        info = await self._database.write(lambda connection: issuing.revoke(connection, key_id, now=now))
        self.forget()
        return info

    def forget(self) -> None:
        """Believe no key that was verified before: something changed about one."""
        self._verified.clear()

    async def authenticate(self, text: str | None) -> Caller:
        """The caller behind a key.

        Args:
            text: what the request carried; None, or one of `NO_KEY`, where it carried none.

        Raises:
            Unauthenticated: no key and no anonymous tier, or a key that is malformed, unknown, expired,
                revoked, replaced, or whose person left the project. Whether an id exists is not told to
                those who lack its secret.
            Suspended: the key, its person or its project is; the message gives the reason.
        """
        if text is None or text in NO_KEY:
            return await self._nobody()
        # The cache never holds a key, only what it hashes to.
        name = hashlib.sha256(text.encode(errors="replace")).digest()
        return self._remembered(name) or await self._verify(parse(text), name)

    async def _nobody(self) -> Caller:
        if not self._allow_anonymous:
            raise Unauthenticated("No API key was sent: send one as `Authorization: Bearer tr_…`.")
        if not self._anonymous_exists:
            await self._database.write(lambda connection: ensure_project(connection, ANONYMOUS))
            self._anonymous_exists = True
        return Caller(ANONYMOUS, None)

    def _remembered(self, name: bytes) -> Caller | None:
        entry = self._verified.get(name)
        if entry is None or self._ticks() >= entry.until or _is_past(entry.ends, self._clock()):
            return None
        return entry.caller

    async def _verify(self, key: Key, name: bytes) -> Caller:
        # Taken before the read: a key that is revoked during it must not be believed for longer.
        until = self._ticks() + CACHE_SECONDS
        row = await self._database.read(lambda connection: _find(connection, key.id))
        row = self._proven(key, row)
        now = self._clock()
        _refuse_ended(row, now)
        _refuse_outcast(row)
        await self._note_use(key.id, row["last_used"], now)
        caller = _caller(row)
        self._remember(name, _Verified(caller, until, _end(row)))
        return caller

    def _proven(self, key: Key, row: RowMapping | None) -> RowMapping:
        """`row`, if the secret is right. An unknown id costs the same work as a wrong secret."""
        mac, version = (None, None) if row is None else (row["mac"], row["pepper_version"])
        right = self._peppers.latest().proves(key.body, mac, version)
        if row is None or not right:
            raise Unauthenticated("The API key is unknown, or its secret is wrong.")
        return row

    def _remember(self, name: bytes, entry: _Verified) -> None:
        if len(self._verified) >= CACHE_ENTRIES:
            self._verified.clear()  # all of it is a second old at most
        self._verified[name] = entry

    async def _note_use(self, key_id: str, last_used: datetime | None, now: datetime) -> None:
        latest = max(filter(None, (last_used, self._used.get(key_id))), default=None)
        if latest is not None and now - latest < LAST_USED_STEP:
            return
        self._used[key_id] = now  # before the write, so that requests side by side write once
        stale = or_(keys.c.last_used.is_(None), keys.c.last_used < now)
        mark = update(keys).where(keys.c.id == key_id, stale).values(last_used=now)
        await self._database.write(lambda connection: connection.execute(mark).rowcount)


def _lookup() -> Select[Any]:
    """A key with all that stands against it, in one round trip."""
    subjects = ("key:" + keys.c.id, "person:" + keys.c.person_id, "project:" + keys.c.project_id)
    return (
        select(
            keys,
            projects.c.archived,
            members.c.role,
            suspensions.c.subject.label("suspended"),
            suspensions.c.reason,
            first_unaccepted(keys.c.person_id).label("unaccepted"),
        )
        .join(projects, projects.c.id == keys.c.project_id)
        .outerjoin(
            members,
            (members.c.project_id == keys.c.project_id) & (members.c.person_id == keys.c.person_id),
        )
        .outerjoin(suspensions, suspensions.c.subject.in_(subjects))
        .where(keys.c.id == bindparam("key_id"))
        # Where several are in force, the nearest one is told.
        .order_by(suspensions.c.subject)
        .limit(1)
    )


_LOOKUP = _lookup()


def _find(connection: Connection, key_id: str) -> RowMapping | None:
    return connection.execute(_LOOKUP, {"key_id": key_id}).mappings().one_or_none()


def _caller(row: RowMapping) -> Caller:
    return Caller(
        project_id=row["project_id"],
        key_id=row["id"],
        person_id=row["person_id"],
        scopes=scopes_of(row),
        key_quotas=quotas_of(row),
        retires=row["retires"],
        unaccepted=row["unaccepted"],
        archived=row["archived"] is not None,
    )


def _end(row: RowMapping) -> datetime | None:
    return min((end for end in (row["expires"], row["retires"]) if end is not None), default=None)


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and now >= moment


def _refuse_ended(row: RowMapping, now: datetime) -> None:
    if row["revoked"] is not None:
        raise Unauthenticated(f"The API key was revoked on {row['revoked']:%Y-%m-%d}.")
    if _is_past(row["expires"], now):
        raise Unauthenticated(f"The API key expired on {row['expires']:%Y-%m-%d}.")
    if _is_past(row["retires"], now):
        raise Unauthenticated(
            f"The API key was replaced by the key {row['successor']}, and ended on {row['retires']:%Y-%m-%d}."
        )


def _refuse_outcast(row: RowMapping) -> None:
    if row["person_id"] is not None and row["role"] is None:
        raise Unauthenticated("The person whose API key this is left the project.")
    if row["suspended"] is not None:
        raise refusal(row["suspended"], row["reason"])
