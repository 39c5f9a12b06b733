"""Making keys, replacing them, and ending them: the rows behind `transom.access.keys.callers`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, RowMapping, func, insert, or_, select, update

from transom.access.credentials.keys import mint
from transom.access.credentials.peppers import Peppers
from transom.access.projects.projects import LOCAL, ensure_project, noted, require
from transom.access.projects.roles import Act, may
from transom.errors import Conflict, InvalidRequest, MissingScope, NotFound
from transom.schema.budgets import BUDGETS
from transom.schema.scopes import ALL_SCOPES, unknown_scopes
from transom.storage.tables import keys

DEFAULT_GRACE = timedelta(hours=24)
"""How long a key that was rotated goes on working, unless its owner says otherwise."""
MAX_GRACE = timedelta(days=7)
MAX_KEYS = 100
"""Living keys of one person in one project."""

GrantScopes: TypeAlias = Callable[[Connection, str, datetime], "frozenset[str]"]
"""The scopes that a project's grants allow at a moment; none where it has no grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What may be shown of a key, again and again."""

    id: str
    project_id: str
    person_id: str | None
    """None for the operator's own keys, in the project `local`."""
    name: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None
    """To the minute."""
    scopes: frozenset[str] | None
    """None for all that the grant has, whatever that becomes."""
    quotas: Mapping[str, int]
    """Limits by budget, beside those of the grant."""
    successor: str | None
    """Id of the key that replaces it."""
    retires: datetime | None
    """Until when a key that was replaced still works."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which its text exists on the server."""

    info: KeyInfo
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a key is to be."""

    project_id: str = LOCAL
    person_id: str | None = None
    name: str = ""
    expires: datetime | None = None
    scopes: frozenset[str] | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := unknown_scopes(self.scopes or ()):
            raise InvalidRequest(
                f"scopes: {', '.join(unknown)[:200]} is none; there are {', '.join(sorted(ALL_SCOPES))}.",
                param="scopes",
            )
        if self.scopes is not None and not self.scopes:
            raise InvalidRequest("scopes: name at least one, or leave it out for all.", param="scopes")
        if strange := sorted(set(self.quotas) - set(BUDGETS)):
            raise InvalidRequest(
                f"quotas: {', '.join(strange)[:200]} is no budget; there are {', '.join(BUDGETS)}.",
                param="quotas",
            )


def issue(connection: Connection, peppers: Peppers, wish: Wish, *, now: datetime) -> NewKey:
    """Make a key, without asking whether it may be; and the project, where it is the server's own."""
    ensure_project(connection, wish.project_id)
    key = mint()
    row = {
        "id": key.id,
        "project_id": wish.project_id,
        "person_id": wish.person_id,
        "name": wish.name,
        "created": now,
        "expires": wish.expires,
        "scopes": None if wish.scopes is None else json.dumps(sorted(wish.scopes)),
        "quotas": json.dumps(dict(sorted(wish.quotas.items()))) if wish.quotas else None,
        "mac": peppers.mac(key.body, peppers.current),
        "pepper_version": peppers.current,
    }
    connection.execute(insert(keys).values(row))
    return NewKey(get(connection, key.id), key.text)


def issue_as_operator(
    connection: Connection, peppers: Peppers, wish: Wish, *, by: str, now: datetime
) -> NewKey:
    """`issue`, noted in the trail."""
    new = issue(connection, peppers, wish, now=now)
    _note(connection, Act.CREATE_KEY, new.info, by=by, now=now)
    return new


def issue_for_member(
    connection: Connection, peppers: Peppers, wish: Wish, grant_scopes: GrantScopes, *, by: str, now: datetime
) -> NewKey:
    """Make a key for a member of a project, within what its grants allow.

    Raises:
        MissingScope: a scope was named that no grant of the project has.
        InvalidRequest: it would have expired already.
        Conflict: the project has no grant, or the person has enough keys there. Else as `require`.
    """
    require(connection, wish.project_id, Act.CREATE_KEY, by=by)
    _check_scopes(wish.scopes, grant_scopes(connection, wish.project_id, now), wish.project_id)
    if wish.expires is not None and wish.expires <= now:
        raise InvalidRequest("expires: the key would have expired already.", param="expires")
    if len([key for key in own_in(connection, wish.project_id, by) if _lives(key, now)]) >= MAX_KEYS:
        raise Conflict(f"You have {MAX_KEYS} keys in this project; revoke some first.")
    new = issue(connection, peppers, wish, now=now)
    _note(connection, Act.CREATE_KEY, new.info, by=by, now=now)
    return new


def rotate(
    connection: Connection,
    peppers: Peppers,
    key_id: str,
    grace: timedelta,
    *,
    by: str,
    now: datetime,
) -> NewKey:
    """A new key with the settings of an old one, which works until `grace` is over.

    Raises:
        NotFound: the person has no such key.
        InvalidRequest: the grace is negative, or more than `MAX_GRACE`.
        Conflict: the key has ended, or was rotated already. Else as `require`.
    """
    if not timedelta() <= grace <= MAX_GRACE:
        most = int(MAX_GRACE.total_seconds())
        raise InvalidRequest(f"grace_seconds must be from 0 to {most}.", param="grace_seconds")
    old = own(connection, key_id, by=by)
    require(connection, old.project_id, Act.CREATE_KEY, by=by)
    if not _lives(old, now):
        raise Conflict("The key has ended; make a new one.")
    if old.successor is not None:
        raise Conflict(f"The key was rotated already; its successor is {old.successor}.")
    wish = Wish(
        project_id=old.project_id,
        person_id=old.person_id,
        name=old.name,
        expires=old.expires,
        scopes=old.scopes,
        quotas=old.quotas,
    )
    new = issue(connection, peppers, wish, now=now)
    replaced = update(keys).where(keys.c.id == key_id)
    connection.execute(replaced.values(successor=new.info.id, retires=now + grace))
    _note(connection, "key.rotate", get(connection, key_id), by=by, now=now)
    return new


def revoke(connection: Connection, key_id: str, *, now: datetime) -> KeyInfo:
    """Refuse a key from now on, without asking who wants it. A second time changes nothing.

    Raises:
        NotFound: there is no such key.
    """
    mark = update(keys).where(keys.c.id == key_id, keys.c.revoked.is_(None)).values(revoked=now)
    connection.execute(mark)
    return get(connection, key_id)


def revoke_as_member(connection: Connection, key_id: str, *, by: str, now: datetime) -> KeyInfo:
    """Refuse a key of one's own, or of another member, from now on.

    Raises:
        NotFound: there is no such key in the person's projects. Else as `require`.
    """
    info = get(connection, key_id)
    act = Act.REVOKE_OWN_KEY if info.person_id == by else Act.REVOKE_ANY_KEY
    try:
        require(connection, info.project_id, act, by=by)
    except NotFound:
        raise _no_key(key_id) from None
    if info.revoked is not None:
        return info
    info = revoke(connection, key_id, now=now)
    _note(connection, "key.revoke", info, by=by, now=now)
    return info


def revoke_as_operator(connection: Connection, key_id: str, *, by: str, now: datetime) -> KeyInfo:
    """Refuse a key, whoever's it is, and note it.

    Raises:
        NotFound: there is no such key.
    """
    if get(connection, key_id).revoked is not None:
        return get(connection, key_id)
    info = revoke(connection, key_id, now=now)
    _note(connection, "key.revoke", info, by=by, now=now)
    return info


def visible(connection: Connection, person_id: str, project_id: str | None = None) -> list[KeyInfo]:
    """One's own keys; in a project where one may see them, all of its keys; oldest first.

    Raises:
        NotFound: the person has no project of the id that was given.
    """
    if project_id is None:
        return _infos(connection, select(keys).where(keys.c.person_id == person_id))
    if may(require(connection, project_id, Act.READ, by=person_id), Act.SEE_ALL_KEYS):
        return list_of_project(connection, project_id)
    return own_in(connection, project_id, person_id)


def list_of_project(connection: Connection, project_id: str) -> list[KeyInfo]:
    """A project's keys, those that have ended too, oldest first."""
    return _infos(connection, select(keys).where(keys.c.project_id == project_id))


def own(connection: Connection, key_id: str, *, by: str) -> KeyInfo:
    """A key of the person's own.

    Raises:
        NotFound: they have none of this id.
    """
    info = get(connection, key_id)
    if info.person_id != by:
        raise _no_key(key_id)
    return info


def get(connection: Connection, key_id: str) -> KeyInfo:
    """A key, whoever's it is.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(keys).where(keys.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise _no_key(key_id)
    return info_of(row)


def count_living(connection: Connection, pepper_version: int, now: datetime) -> int:
    """Keys that still work and are hashed under this pepper."""
    alive = (
        keys.c.revoked.is_(None),
        or_(keys.c.expires.is_(None), keys.c.expires > now),
        or_(keys.c.retires.is_(None), keys.c.retires > now),
    )
    query = select(func.count()).select_from(keys).where(keys.c.pepper_version == pepper_version, *alive)
    return int(connection.execute(query).scalar_one())


def info_of(row: RowMapping) -> KeyInfo:
    """What may be shown of a row."""
    return KeyInfo(
        id=row["id"],
        project_id=row["project_id"],
        person_id=row["person_id"],
        name=row["name"],
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        last_used=row["last_used"],
        scopes=scopes_of(row),
        quotas=quotas_of(row),
        successor=row["successor"],
        retires=row["retires"],
    )


def scopes_of(row: RowMapping) -> frozenset[str] | None:
    """The scopes in a row; None for all of the grant's."""
    return None if row["scopes"] is None else frozenset(json.loads(row["scopes"]))


def quotas_of(row: RowMapping) -> dict[str, int]:
    """The limits in a row."""
    return {} if row["quotas"] is None else json.loads(row["quotas"])


def _check_scopes(wanted: Iterable[str] | None, granted: frozenset[str], project_id: str) -> None:
    if not granted:
        raise Conflict(f"The project {project_id} has no grant in force: apply for one first.")
    for scope in sorted(set(wanted or ()) - granted):
        raise MissingScope(
            f"No grant of the project has the scope {scope}; it has {', '.join(sorted(granted))}. "
            "Leave it out, or apply for it.",
            scope=scope,
        )


def own_in(connection: Connection, project_id: str, person_id: str) -> list[KeyInfo]:
    """A person's keys in a project, those that have ended too, oldest first."""
    query = select(keys).where(keys.c.project_id == project_id, keys.c.person_id == person_id)
    return _infos(connection, query)


def _infos(connection: Connection, query: Any) -> list[KeyInfo]:  # noqa: ANN401  # a Select of whole rows
    rows = connection.execute(query.order_by(keys.c.created, keys.c.id)).mappings()
    return [info_of(row) for row in rows]


def _lives(info: KeyInfo, now: datetime) -> bool:
    ends = [moment for moment in (info.expires, info.retires) if moment is not None]
    return info.revoked is None and all(now < moment for moment in ends)


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id[:40]!r}.", param="id")


def _note(connection: Connection, action: str, info: KeyInfo, *, by: str, now: datetime) -> None:
    noted(connection, action, info.project_id, by=by, now=now, subject=info.id, person_id=info.person_id)
