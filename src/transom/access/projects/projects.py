"""Projects: who keys and records belong to. Two are the server's own; all others belong to people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from transom.access.credentials.keys import random_id
from transom.access.projects import embargo
from transom.access.projects.roles import RULES, Act, Role
from transom.access.rights.suspensions import refuse_suspended
from transom.access.rights.trail import Entry, note
from transom.errors import Conflict, Forbidden, NotFound
from transom.schema.canonical import CanonicalJson
from transom.storage.tables import members, projects

ARCHIVED = "The project is archived; its owner can open it again."
"""What members are told who want to do what an archived project does not."""

LOCAL = "local"
ANONYMOUS = "anonymous"

_NAMES = {LOCAL: "Local project", ANONYMOUS: "Everybody without a key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project, as a member sees it."""

    id: str
    name: str
    description: str
    institution: str
    created: datetime
    archived: datetime | None
    embargo_months: int
    role: Role
    """Of the member who looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a project says of itself; None leaves a text as it is."""

    name: str | None = None
    description: str | None = None
    institution: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Those that are to change."""
        texts = {"name": self.name, "description": self.description, "institution": self.institution}
        return {key: text for key, text in texts.items() if text is not None}


def ensure_project(connection: Connection, project_id: str) -> None:
    """Create the project where it does not exist yet."""
    known = connection.execute(select(projects.c.id).where(projects.c.id == project_id)).first()
    if known is None:
        name = _NAMES.get(project_id, project_id)
        row = {"id": project_id, "name": name, "created": datetime.now(UTC), "last_sequence": 0}
        connection.execute(insert(projects).values(row))


def create(
    connection: Connection, texts: Texts, *, embargo_months: int = 0, by: str, now: datetime
) -> Project:
    """A new project, with `by` as its owner.

    Raises:
        InvalidRequest: there is no such embargo.
        Suspended: the person is.
    """
    refuse_suspended(connection, f"person:{by}")
    project_id = "prj_" + random_id()
    row = {"id": project_id, "name": "", "created": now, "last_sequence": 0} | texts.given
    connection.execute(insert(projects).values(row))
    embargo.choose(connection, project_id, embargo_months, by=by, now=now)
    connection.execute(insert(members).values(_membership(project_id, by, Role.OWNER, now)))
    noted(connection, "project.create", project_id, by=by, now=now, embargo_months=embargo_months)
    return show(connection, project_id, by=by)


def show(connection: Connection, project_id: str, *, by: str) -> Project:
    """A project, for a member; raises as `require` does."""
    role = require(connection, project_id, Act.READ, by=by)
    return _project(connection, _row(connection, project_id), role)


def list_of(connection: Connection, person_id: str) -> list[Project]:
    """The projects that a person is a member of, oldest first."""
    query = (
        select(projects, members.c.role)
        .join(members, members.c.project_id == projects.c.id)
        .where(members.c.person_id == person_id, projects.c.deleted.is_(None))
        .order_by(projects.c.created, projects.c.id)
    )
    return [_project(connection, row, Role(row.role)) for row in connection.execute(query).all()]


def edit(
    connection: Connection,
    project_id: str,
    texts: Texts,
    embargo_months: int | None = None,
    *,
    by: str,
    now: datetime,
) -> Project:
    """Change texts and embargo; raises as `require` and `embargo.choose` do."""
    require(connection, project_id, Act.EDIT, by=by)
    if texts.given:
        connection.execute(update(projects).where(projects.c.id == project_id).values(texts.given))
        noted(connection, "project.edit", project_id, by=by, now=now, fields=sorted(texts.given))
    before = embargo.in_months(connection, project_id)
    if embargo_months not in (None, before):
        embargo.choose(connection, project_id, embargo_months, by=by, now=now)
        noted(connection, "project.embargo", project_id, by=by, now=now, months=embargo_months, before=before)
    return show(connection, project_id, by=by)


def lengthen_embargo(  # who asks and who grants are two
    connection: Connection,
    project_id: str,
    months: int,
    *,
    application: str,
    asked_by: str,
    by: str,
    now: datetime,
) -> int:
    """Put the embargo that an application asks for on its project, unless a longer one holds there.

    Args:
        connection: to the database, in the transaction of the decision.
        project_id: the project.
        months: what is asked for.
        application: id of the application that is granted.
        asked_by: whose choice it was.
        by: who decided.
        now: the time.

    Returns:
        What holds now, in months.

    Raises:
        InvalidRequest: there is no such embargo.
    """
    before = embargo.in_months(connection, project_id)
    if months <= before:
        # To shorten it is another act, of people in the project, and has an entry of its own in the trail.
        return before
    embargo.choose(connection, project_id, months, by=asked_by, now=now)
    noted(
        connection,
        "project.embargo",
        project_id,
        by=by,
        now=now,
        months=months,
        before=before,
        application=application,
    )
    return months


def archive(connection: Connection, project_id: str, *, archived: bool, by: str, now: datetime) -> Project:
    """Let nothing new be asked in a project, or let it be asked again. A second time changes nothing."""
    require(connection, project_id, Act.ARCHIVE, by=by)
    different = projects.c.archived.is_(None) if archived else projects.c.archived.is_not(None)
    change = update(projects).where(projects.c.id == project_id, different)
    if connection.execute(change.values(archived=now if archived else None)).rowcount:
        noted(connection, "project.archive" if archived else "project.reopen", project_id, by=by, now=now)
    return show(connection, project_id, by=by)


def require(connection: Connection, project_id: str, act: Act, *, by: str) -> Role:
    """The role of a member who may do this now.

    Raises:
        NotFound: there is no such project, or the person is no member: they learn not which.
        Forbidden: their role does not allow it.
        Suspended: the project or the person is suspended, and that stands against it.
        Conflict: the project is archived.
    """
    role = role_of(connection, project_id, by)
    if role is None or (_row(connection, project_id).deleted is not None and act is not Act.DELETE):
        raise NotFound(f"You have no project {project_id[:40]!r}.", param="id")
    rule = RULES[act]
    if role not in rule.roles:
        allowed = " or ".join(sorted(rule.roles))
        raise Forbidden(f"{act} needs the role {allowed} in the project; you are {role} there.")
    if not rule.suspended:
        refuse_suspended(connection, f"person:{by}", f"project:{project_id}")
    if not rule.archived and _row(connection, project_id).archived is not None:
        raise Conflict(ARCHIVED)
    return role


def role_of(connection: Connection, project_id: str, person_id: str) -> Role | None:
    """What a person is in a project; None where they are no member."""
    query = select(members.c.role).where(members.c.project_id == project_id, members.c.person_id == person_id)
    role = connection.execute(query).scalar_one_or_none()
    return None if role is None else Role(role)


def noted(
    connection: Connection,
    action: str,
    project_id: str,
    *,
    by: str,
    now: datetime,
    subject: str | None = None,
    person_id: str | None = None,
    **details: CanonicalJson,
) -> None:
    """Note in the trail what a member did in a project."""
    entry = Entry(
        at=now,
        actor=by,
        action=str(action),
        subject=subject or project_id,
        project_id=project_id,
        person_id=person_id,
        details=details,
    )
    note(connection, entry)


def _membership(project_id: str, person_id: str, role: Role, now: datetime) -> dict[str, Any]:
    return {"project_id": project_id, "person_id": person_id, "role": role.value, "joined": now}


def _row(connection: Connection, project_id: str) -> Row[Any]:
    return connection.execute(select(projects).where(projects.c.id == project_id)).one()


def _project(connection: Connection, row: Row[Any], role: Role) -> Project:
    return Project(
        id=row.id,
        name=row.name,
        description=row.description,
        institution=row.institution,
        created=row.created,
        archived=row.archived,
        embargo_months=embargo.in_months(connection, row.id),
        role=role,
    )
