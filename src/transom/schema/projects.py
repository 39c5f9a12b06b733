"""Projects over HTTP: their members, invitations, suspensions and trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from transom.schema.record import Read, rfc3339
from transom.schema.wire import Body

RoleName: TypeAlias = Literal["owner", "admin", "member"]

EmbargoMonths: TypeAlias = Literal[0, 3, 6, 12]

Line: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\S[^\x00-\x1f\x7f-\x9f]*$")
]
"""Text on one line, with something on it."""

Paragraphs: TypeAlias = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00]*$")]
"""Text; the one character that PostgreSQL cannot keep is refused."""

ShortText: TypeAlias = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""Text on one line, or none."""

ID_PATTERN = r"^[0-9A-Za-z_-]+$"

Id: TypeAlias = Annotated[str, Field(max_length=64, pattern=ID_PATTERN)]
"""What could name something here."""


def _as_text(value: object) -> object:
    return rfc3339(value) if isinstance(value, datetime) else value


Moment: TypeAlias = Annotated[str, BeforeValidator(_as_text)]
"""RFC 3339, UTC."""


class View(Read):
    """What is read over HTTP, made from an object with fields of the same names."""

    model_config = ConfigDict(from_attributes=True)


class NewProject(Body):
    """Body of `POST /v1/projects`."""

    name: Line
    description: Paragraphs = ""
    institution: ShortText = ""
    embargo_months: EmbargoMonths = Field(
        default=0, description="Months after which the project's records open; it can be changed later."
    )


class ProjectChange(Body):
    """Body of `PATCH /v1/projects/{id}`. What is left out stays as it is."""

    name: Line | None = None
    description: Paragraphs | None = None
    institution: ShortText | None = None
    embargo_months: EmbargoMonths | None = Field(
        default=None, description="Records that are open already stay open."
    )
    archived: bool | None = Field(default=None, description="Whether the project takes nothing new")


class SuspensionView(View):
    """What the operator has suspended, and why."""

    subject: str = Field(description="`key:<id>`, `person:<id>` or `project:<id>`")
    reason: str
    since: Moment


class ProjectView(View):
    """A project, as a member reads it."""

    id: str
    name: str
    description: str
    institution: str
    created: Moment
    archived: Moment | None = Field(description="Since when it takes nothing new")
    embargo_months: int
    role: RoleName = Field(description="The reader's own")
    suspensions: tuple[SuspensionView, ...] = Field(
        default=(), description="Of the project, of the reader, and of the reader's keys in it"
    )


class ProjectList(View):
    """The projects of a person."""

    data: tuple[ProjectView, ...]


class MemberView(View):
    """Somebody in a project."""

    person_id: str
    role: RoleName
    joined: Moment


class MemberList(View):
    """Everybody in a project."""

    data: tuple[MemberView, ...]


class RoleChange(Body):
    """Body of `PUT /v1/projects/{id}/members/{person_id}`."""

    role: RoleName


class Transfer(Body):
    """Body of `POST /v1/projects/{id}/transfer`."""

    person_id: Id = Field(description="The member who is to own the project")


class NewInvitation(Body):
    """Body of `POST /v1/projects/{id}/invitations`."""

    email: str = Field(max_length=254)
    role: RoleName = "member"


class InvitationView(View):
    """An invitation that is open. Its secret is in the letter alone."""

    id: str
    project_id: str
    email: str
    role: RoleName
    created: Moment
    expires: Moment


class InvitationList(View):
    """The open invitations of a project."""

    data: tuple[InvitationView, ...]


class InvitationSecret(Body):
    """Body of `POST /v1/invitations/accept` and `…/decline`."""

    invitation: str = Field(max_length=200, description="The secret in the letter, `ti_…`")


class TrailEntry(View):
    """One act that is in the trail."""

    number: int
    at: Moment
    actor: str = Field(description="A person's id, `operator:<user>` or `system`")
    action: str
    subject: str
    project_id: str | None
    person_id: str | None
    reason: str | None = Field(
        description="Null too where people of the project gave one: it is read at the application or grant, "
        "at the event or change whose number is in `details`"
    )
    details: dict[str, Any]
    digest: str = Field(description="Over the entry and the digest of the one before it")


class TrailPage(View):
    """Part of the trail, newest first."""

    data: tuple[TrailEntry, ...]
    before: int | None = Field(description="Pass this for the next page; null on the last one")


class Deleted(View):
    """What was deleted."""

    id: str
    openings: int = Field(description="Records whose prompts and answers are gone; their statements stay")
    artifacts: int = Field(default=0, description="Artifacts that are gone")
