"""Invitations to a project, by e-mail: a secret that works once, and for whoever owns the address.

Nobody learns from one whether an address has an account: inviting says and does the same for each, and every
secret that does not work is refused in the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Row, func, insert, select, update

from transom.access.credentials.keys import Key, Kind, mint, parse
from transom.access.credentials.peppers import Peppers
from transom.access.people.people import normal_email
from transom.access.projects import members
from transom.access.projects.projects import noted, require
from transom.access.projects.roles import COMMANDS, Act, Role
from transom.access.rights.suspensions import refuse_suspended
from transom.errors import Conflict, Forbidden, NotFound, Unauthenticated
from transom.storage.tables import invitations, projects

INVITATION = Kind(prefix="ti", name="invitation", code="not_found")

LIFETIME = timedelta(days=14)
MAX_OPEN = 100
"""Open invitations of one project."""

EmailOf: TypeAlias = Callable[[Connection, str], "str | None"]
"""The address that a person has proven to be theirs; None where they have none."""

Outcome = Literal["accepted", "declined", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation, as the project sees it."""

    id: str
    project_id: str
    email: str
    role: Role
    created: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation just made: the only moment at which its secret exists on the server."""

    invitation: Invitation
    project_name: str
    secret: str = field(repr=False)


def invite(
    connection: Connection,
    peppers: Peppers,
    project_id: str,
    email: str,
    role: Role,
    *,
    by: str,
    now: datetime,
) -> NewInvitation:
    """Invite whoever owns an address.

    Raises:
        InvalidRequest: it is no address.
        Forbidden: the role is not one that the member may give.
        Conflict: too many invitations are open. Else as `require`.
    """
    own = require(connection, project_id, Act.INVITE, by=by)
    if role not in COMMANDS[own]:
        raise Forbidden(f"To invite somebody as {role} needs the role owner in the project; you are {own}.")
    address = normal_email(email)
    if len(_open(connection, project_id, now)) >= MAX_OPEN:
        raise Conflict(f"{MAX_OPEN} invitations are open; take some back, or wait for answers.")
    secret = mint(INVITATION)
    row = {
        "id": secret.id,
        "project_id": project_id,
        "email": address,
        "role": role.value,
        "mac": peppers.mac(secret.body, peppers.current),
        "pepper_version": peppers.current,
        "invited_by": by,
        "created": now,
        "expires": now + LIFETIME,
    }
    connection.execute(insert(invitations).values(row))
    # Not the address: the trail forgets nothing, and the person has not agreed to be in it.
    noted(connection, Act.INVITE, project_id, by=by, now=now, subject=secret.id, role=str(role))
    name = connection.execute(select(projects.c.name).where(projects.c.id == project_id)).scalar_one()
    return NewInvitation(_invitation(_one(connection, secret.id)), name, secret.text)


def list_open(connection: Connection, project_id: str, *, by: str, now: datetime) -> list[Invitation]:
    """The invitations that can still be accepted, oldest first; raises as `require` does."""
    require(connection, project_id, Act.INVITE, by=by)
    return [_invitation(row) for row in _open(connection, project_id, now)]


def revoke(connection: Connection, project_id: str, invitation_id: str, *, by: str, now: datetime) -> None:
    """Take an invitation back.

    Raises:
        NotFound: the project has no such invitation, or it is not open any more. Else as `require`.
    """
    require(connection, project_id, Act.INVITE, by=by)
    row = _one(connection, invitation_id)
    if row is None or row.project_id != project_id or not _is_open(row, now):
        raise NotFound(f"The project has no open invitation {invitation_id[:40]!r}.", param="invitation")
    _close(connection, row, "revoked", by=by, now=now)


def accept(
    connection: Connection, peppers: Peppers, text: str, email_of: EmailOf, *, by: str, now: datetime
) -> str:
    """Become a member; the project's id.

    Args:
        connection: to the database.
        peppers: what its keyed hash was made with.
        text: the secret, from the letter.
        email_of: see `EmailOf`.
        by: the person who accepts.
        now: the time.

    Raises:
        NotFound: the secret is none, is used up, taken back or expired, or was sent to an address that is
            not this person's.
        Conflict: they are a member already.
        Suspended: they, or the project, are suspended.
    """
    row = _answerable(connection, peppers, text, email_of, by=by, now=now)
    refuse_suspended(connection, f"person:{by}", f"project:{row.project_id}")
    members.add(connection, row.project_id, by, Role(row.role), now=now)
    _close(connection, row, "accepted", by=by, now=now)
    return str(row.project_id)


def decline(
    connection: Connection, peppers: Peppers, text: str, email_of: EmailOf, *, by: str, now: datetime
) -> None:
    """Say no, for good; raises as `accept` does."""
    row = _answerable(connection, peppers, text, email_of, by=by, now=now)
    _close(connection, row, "declined", by=by, now=now)


def _answerable(
    connection: Connection, peppers: Peppers, text: str, email_of: EmailOf, *, by: str, now: datetime
) -> Row[Any]:
    secret = _parsed(text)
    row = None if secret is None else _one(connection, secret.id)
    body = "" if secret is None else secret.body
    mac, version = (None, None) if row is None else (row.mac, row.pepper_version)
    proven = peppers.proves(body, mac, version)
    if row is None or not proven or not _is_open(row, now) or email_of(connection, by) != row.email:
        raise NotFound(
            "This invitation does not work: it was used, taken back or is too old, or it was sent to an "
            "address that is not the one of your account. Ask whoever invited you for another.",
            param="invitation",
        )
    return row


def _parsed(text: str) -> Key | None:
    try:
        return parse(text.strip(), INVITATION)
    except Unauthenticated:
        return None


def _close(connection: Connection, row: Row[Any], outcome: Outcome, *, by: str, now: datetime) -> None:
    this = update(invitations).where(invitations.c.id == row.id, invitations.c.outcome.is_(None))
    connection.execute(this.values(outcome=outcome, ended=now))
    joined = by if outcome == "accepted" else None
    action = f"invitation.{outcome}"
    noted(connection, action, row.project_id, by=by, now=now, subject=row.id, person_id=joined)


def _one(connection: Connection, invitation_id: str) -> Row[Any] | None:
    return connection.execute(select(invitations).where(invitations.c.id == invitation_id)).one_or_none()


def _open(connection: Connection, project_id: str, now: datetime) -> list[Row[Any]]:
    query = select(invitations).where(
        invitations.c.project_id == project_id, invitations.c.outcome.is_(None), invitations.c.expires > now
    )
    return list(connection.execute(query.order_by(invitations.c.created, invitations.c.id)).all())


def count_open(connection: Connection, pepper_version: int, now: datetime) -> int:
    """Open invitations whose secret is hashed under this pepper."""
    query = select(func.count()).where(
        invitations.c.pepper_version == pepper_version,
        invitations.c.outcome.is_(None),
        invitations.c.expires > now,
    )
    return int(connection.execute(query).scalar_one())


def _is_open(row: Row[Any], now: datetime) -> bool:
    return row.outcome is None and now < row.expires


def _invitation(row: Row[Any] | None) -> Invitation:
    assert row is not None  # noqa: S101  # just written
    return Invitation(
        id=row.id,
        project_id=row.project_id,
        email=row.email,
        role=Role(row.role),
        created=row.created,
        expires=row.expires,
    )
