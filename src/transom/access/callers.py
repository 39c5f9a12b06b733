"""From the key in a request to the caller behind it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from transom.access.keys import NO_KEY, Key, mint, parse
from transom.access.peppers import Peppers
from transom.access.projects import ANONYMOUS, LOCAL, ensure_project
from transom.errors import NotFound, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import keys

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

    @property
    def anonymous(self) -> bool:
        """Whether no key was sent."""
        return self.key_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What may be shown of a key, again and again."""

    id: str
    project_id: str
    name: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None
    """To the minute."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which its text exists on the server."""

    info: KeyInfo
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    until: float
    """Monotonic seconds."""
    expires: datetime | None


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
        peppers: Peppers,
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
        """Make a key, and the project with its first one."""
        key, version = mint(), self._peppers.current
        row = {
            "id": key.id,
            "project_id": project_id,
            "name": name,
            "created": self._clock(),
            "expires": expires_at,
            "mac": self._peppers.mac(key.body, version),
            "pepper_version": version,
        }

        def write(connection: Connection) -> KeyInfo:
            ensure_project(connection, project_id)
            connection.execute(insert(keys).values(row))
            return _info(_one(connection, key.id))

        return NewKey(await self._database.write(write), key.text)

    async def list_keys(self, project_id: str = LOCAL) -> list[KeyInfo]:
        """A project's keys, revoked and expired ones too, oldest first."""
        query = select(keys).where(keys.c.project_id == project_id).order_by(keys.c.created, keys.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_info(row) for row in rows]

    async def revoke(self, key_id: str) -> KeyInfo:
        """Refuse the key from now on: here at once, in other processes within `CACHE_SECONDS`.

        A second time changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        mark = update(keys).where(keys.c.id == key_id, keys.c.revoked.is_(None)).values(revoked=self._clock())

        def write(connection: Connection) -> KeyInfo:
            connection.execute(mark)
            return _info(_one(connection, key_id))

        info = await self._database.write(write)
        self._verified.clear()
        return info

    async def authenticate(self, text: str | None) -> Caller:
        """The caller behind a key.

        Args:
            text: what the request carried; None, or one of `NO_KEY`, where it carried none.

        Raises:
            Unauthenticated: no key and no anonymous tier, or a key that is malformed, unknown, expired or
                revoked. Whether an id exists is not told to those who lack its secret.
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
        if entry is None or self._ticks() >= entry.until or _is_past(entry.expires, self._clock()):
            return None
        return entry.caller

    async def _verify(self, key: Key, name: bytes) -> Caller:
        # Taken before the read: a key that is revoked during it must not be believed for longer.
        until = self._ticks() + CACHE_SECONDS
        row = await self._database.read(lambda connection: _find(connection, key.id))
        row = self._proven(key, row)
        now = self._clock()
        _refuse_ended(row, now)
        caller = Caller(row["project_id"], key.id)
        await self._note_use(key.id, row["last_used"], now)
        self._remember(name, _Verified(caller, until, row["expires"]))
        return caller

    def _proven(self, key: Key, row: RowMapping | None) -> RowMapping:
        """`row`, if the secret is right. An unknown id costs the same work as a wrong secret."""
        current = self._peppers.current
        version: int = current if row is None else row["pepper_version"]
        usable = version if version in self._peppers.versions else current
        stored = bytes(32) if row is None else row["mac"]
        right = hmac.compare_digest(self._peppers.mac(key.body, usable), stored)
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


def _find(connection: Connection, key_id: str) -> RowMapping | None:
    return connection.execute(select(keys).where(keys.c.id == key_id)).mappings().one_or_none()


def _one(connection: Connection, key_id: str) -> RowMapping:
    row = _find(connection, key_id)
    if row is None:
        raise NotFound(f"There is no key {key_id!r}.")
    return row


def _info(row: RowMapping) -> KeyInfo:
    return KeyInfo(
        id=row["id"],
        project_id=row["project_id"],
        name=row["name"],
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        last_used=row["last_used"],
    )


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and now >= moment


def _refuse_ended(row: RowMapping, now: datetime) -> None:
    if row["revoked"] is not None:
        raise Unauthenticated(f"The API key was revoked on {row['revoked']:%Y-%m-%d}.")
    if _is_past(row["expires"], now):
        raise Unauthenticated(f"The API key expired on {row['expires']:%Y-%m-%d}.")
