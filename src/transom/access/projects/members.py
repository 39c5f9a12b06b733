"""Members of a project: their roles, leaving, and who owns it. A project is never without an owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from transom.access.projects.projects import list_of, noted, require, role_of
from transom.access.projects.roles import COMMANDS, Act, Role
from transom.errors import Conflict, Forbidden, InvalidRequest, NotFound
from transom.storage.tables import keys, members


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody in a project."""

    person_id: str
    role: Role
    joined: datetime


def list_members(connection: Connection, project_id: str, *, by: str) -> list[Member]:
    """Who is in a project, longest first; raises as `require` does."""
    require(connection, project_id, Act.READ, by=by)
    query = select(members).where(members.c.project_id == project_id)
    rows = connection.execute(query.order_by(members.c.joined, members.c.person_id)).all()
    return [Member(person_id=row.person_id, role=Role(row.role), joined=row.joined) for row in rows]


def add(connection: Connection, project_id: str, person_id: str, role: Role, *, now: datetime) -> None:
    """Make somebody a member, on whoever's decision.

    Raises:
        Conflict: they are one already.
    """
    if role_of(connection, project_id, person_id) is not None:
        raise Conflict("You are a member of this project already.")
    row = {"project_id": project_id, "person_id": person_id, "role": role.value, "joined": now}
    connection.execute(insert(members).values(row))


def change_role(
    connection: Connection, project_id: str, person_id: str, role: Role, *, by: str, now: datetime
) -> None:
    """Give a member another role; who is made an owner is one beside those that there are.

    Raises:
        Conflict: the project would be without an owner. Else as `require`.
    """
    require(connection, project_id, Act.CHANGE_ROLE, by=by)
    before = _member(connection, project_id, person_id)
    if before is role:
        return
    if before is Role.OWNER:
        _refuse_ownerless(connection, project_id)
    _set_role(connection, project_id, person_id, role)
    details = {"role": str(role), "before": str(before)}
    noted(connection, Act.CHANGE_ROLE, project_id, by=by, now=now, person_id=person_id, **details)


def transfer(connection: Connection, project_id: str, person_id: str, *, by: str, now: datetime) -> None:
    """Hand one's ownership to another member, and be an admin from now on.

    Raises:
        InvalidRequest: that is oneself. Else as `require`.
    """
    require(connection, project_id, Act.TRANSFER, by=by)
    if person_id == by:
        raise InvalidRequest("person_id: name another member; you own the project.", param="person_id")
    _member(connection, project_id, person_id)
    _set_role(connection, project_id, person_id, Role.OWNER)
    _set_role(connection, project_id, by, Role.ADMIN)
    noted(connection, Act.TRANSFER, project_id, by=by, now=now, person_id=person_id)


def remove(connection: Connection, project_id: str, person_id: str, *, by: str, now: datetime) -> None:
    """End a membership, one's own or another's; the keys that the member had in the project end with it.

    Raises:
        Conflict: the project would be without an owner. Else as `require`.
    """
    leaving = person_id == by
    role = require(connection, project_id, Act.LEAVE if leaving else Act.REMOVE, by=by)
    theirs = _member(connection, project_id, person_id)
    if not leaving and theirs not in COMMANDS[role]:
        raise Forbidden(f"A member with the role {theirs} is removed by an owner; you are {role}.")
    if theirs is Role.OWNER:
        _refuse_ownerless(connection, project_id)
    _end(connection, project_id, person_id, now)
    act = Act.LEAVE if leaving else Act.REMOVE
    noted(connection, act, project_id, by=by, now=now, person_id=person_id)


def farewell(connection: Connection, person_id: str, now: datetime) -> None:
    """End all memberships and keys of a person who deletes their account.

    Raises:
        Conflict: a project would be left without an owner.
    """
    for project in list_of(connection, person_id):
        if project.role is Role.OWNER and _owners(connection, project.id) == 1:
            raise Conflict(
                f"You alone own the project {project.id}: hand it to another member, or delete it, first."
            )
        _end(connection, project.id, person_id, now)
        noted(connection, Act.LEAVE, project.id, by=person_id, now=now, person_id=person_id)


def _end(connection: Connection, project_id: str, person_id: str, now: datetime) -> None:
    theirs = (members.c.project_id == project_id, members.c.person_id == person_id)
    connection.execute(delete(members).where(*theirs))
    # For good: should they come back, they make new ones.
    alive = (keys.c.project_id == project_id, keys.c.person_id == person_id, keys.c.revoked.is_(None))
    connection.execute(update(keys).where(*alive).values(revoked=now))


def _member(connection: Connection, project_id: str, person_id: str) -> Role:
    role = role_of(connection, project_id, person_id)
    if role is None:
        raise NotFound(f"{person_id[:40]!r} is no member of this project.", param="person_id")
    return role


def _set_role(connection: Connection, project_id: str, person_id: str, role: Role) -> None:
    this = (members.c.project_id == project_id, members.c.person_id == person_id)
    connection.execute(update(members).where(*this).values(role=role.value))


def _refuse_ownerless(connection: Connection, project_id: str) -> None:
    if _owners(connection, project_id) == 1:
        raise Conflict("A project is never without an owner: hand it to another member, or delete it, first.")


def _owners(connection: Connection, project_id: str) -> int:
    query = select(func.count()).where(members.c.project_id == project_id, members.c.role == Role.OWNER.value)
    return int(connection.execute(query).scalar_one())
