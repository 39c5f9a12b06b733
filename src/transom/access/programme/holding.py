"""Having a grant: reading it, reporting on it, and ending it before its time.

Each function is one step in the sense of `access.programme.desk`.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from transom.access.people.persons import PersonCaller
from transom.access.programme.desk import Occasion
from transom.access.programme.grants import (
    Grant,
    GrantChange,
    change_grant,
    grant_view,
    grants_of,
    load_grant,
    locked_grant,
    unknown_grant,
)
from transom.access.programme.letters import tell_ended
from transom.access.programme.obstacles import refuse_closed, refuse_deleted
from transom.access.programme.standing import MANAGING, role_in
from transom.access.rights.suspensions import refuse_suspended
from transom.errors import Conflict, Forbidden
from transom.schema.grants import Ending, GrantPage, GrantView, ProgressReport
from transom.storage.tables import members


def show_grant(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, grant_id: str
) -> GrantView:
    """A grant, for its project or the operator.

    Raises:
        NotFound: the caller may not know of it.
    """
    grant = load_grant(connection, grant_id)
    _role(connection, grant, caller)
    return grant_view(grant, occasion.now)


def list_grants(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, project: str | None
) -> GrantPage:
    """The grants of the caller's projects, past ones too, newest first; the operator may name any project."""
    query = select(members.c.project_id).where(members.c.person_id == caller.person_id)
    mine = connection.execute(query).scalars().all()
    chosen = [each for each in mine if project in {None, each}]
    if project is not None and caller.operates:
        refuse_suspended(connection, f"person:{caller.person_id}")
        chosen = [project]
    return GrantPage(data=[grant_view(grant, occasion.now) for grant in grants_of(connection, chosen)])


def report_progress(
    connection: Connection,
    occasion: Occasion,
    *,
    caller: PersonCaller,
    grant_id: str,
    body: ProgressReport,
) -> GrantView:
    """Say what was done so far; releases what is held back.

    Raises:
        NotFound: the caller is not in its project.
        Forbidden: the caller does not manage the project.
        Suspended: the caller is, or the project.
        Conflict: nothing is held back, it is not in force, or the project is archived.
    """
    grant = locked_grant(connection, grant_id)
    role = _role(connection, grant, caller)
    if role not in MANAGING:
        raise Forbidden("Only an owner or administrator of the project reports on its grant.")
    refuse_closed(connection, grant.project_id, by=caller.person_id, applicant=caller.person_id)
    if grant.state(occasion.now) != "in_force":
        raise Conflict(f"The grant is {grant.state(occasion.now).replace('_', ' ')}, and not in force.")
    if not grant.held_back:
        raise Conflict("Nothing of this grant is held back, and so no report is awaited.")
    change = GrantChange(at=occasion.now, actor=caller.person_id, kind="progress", reason=body.report)
    change_grant(connection, grant, change)
    return grant_view(load_grant(connection, grant_id), occasion.now)


def end_grant(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, grant_id: str, body: Ending
) -> GrantView:
    """End a grant before its time, and tell its project.

    Raises:
        NotFound: the caller may not know of it, or their project is being deleted.
        Forbidden: the caller neither operates the server nor manages the project.
        Conflict: it is over already.
    """
    grant = locked_grant(connection, grant_id)
    role = _role(connection, grant, caller)
    own = role in MANAGING
    if not own and not caller.operates:
        raise Forbidden("Only the operator, or an owner or administrator of the project, ends a grant.")
    if own:
        refuse_deleted(connection, grant.project_id)
    if grant.state(occasion.now) in {"ended", "expired"}:
        raise Conflict(f"The grant is over since {grant.ends:%Y-%m-%d %H:%M} UTC.")
    change = GrantChange(at=occasion.now, actor=caller.person_id, kind="end", reason=body.reason)
    change_grant(connection, grant, change, lasting_reason=None if own else body.reason)
    tell_ended(connection, grant, occasion.now)
    return grant_view(load_grant(connection, grant_id), occasion.now)


def _role(connection: Connection, grant: Grant, caller: PersonCaller) -> str | None:
    """The caller's role in the grant's project; None for the operator."""
    role = role_in(connection, grant.project_id, caller.person_id)
    if role is None and not caller.operates:
        raise unknown_grant(grant.id)
    if role is None:
        refuse_suspended(connection, f"person:{caller.person_id}")
    return role
