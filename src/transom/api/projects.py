"""`/v1/projects` and `/v1/invitations`: projects, who is in them, and all that is kept of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from transom.access.projects.roles import Role
from transom.api.body import PersonRoute
from transom.api.dependencies import ProjectId, TheOffice, ThePerson
from transom.api.errors import documented
from transom.schema.projects import (
    Deleted,
    Id,
    InvitationList,
    InvitationSecret,
    InvitationView,
    MemberList,
    NewInvitation,
    NewProject,
    ProjectChange,
    ProjectList,
    ProjectView,
    RoleChange,
    Transfer,
)
from transom.services.people import projects, rights

router = APIRouter(prefix="/projects", tags=["Projects"], route_class=PersonRoute)
invitations = APIRouter(prefix="/invitations", tags=["Projects"], route_class=PersonRoute)

PersonId = Annotated[Id, Path(description="A person's id, `per_…`")]
InvitationId = Annotated[Id, Path(description="An invitation's id")]
Confirm = Annotated[str, Query(max_length=200, description="The project's name, to be sure")]

_READ = documented(400, 401, 404)
_ACT = documented(400, 401, 403, 404, 409)
_SEND = documented(400, 401, 403, 404, 409, 413, 415)
_NDJSON = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}


@router.post("", status_code=201, responses=_SEND)
async def create_project(body: NewProject, office: TheOffice, person: ThePerson) -> ProjectView:
    """Make a project; you own it."""
    return await projects.create(office, person, body)


@router.get("", responses=documented(400, 401))
async def list_projects(office: TheOffice, person: ThePerson) -> ProjectList:
    """The projects that you are a member of, oldest first."""
    return ProjectList(data=tuple(await projects.list_own(office, person)))


@router.get("/{id}", responses=_READ)
async def get_project(project_id: ProjectId, office: TheOffice, person: ThePerson) -> ProjectView:
    """A project; if anything of it is suspended, also why."""
    return await projects.show(office, person, project_id)


@router.patch("/{id}", responses=_SEND)
async def change_project(
    project_id: ProjectId, body: ProjectChange, office: TheOffice, person: ThePerson
) -> ProjectView:
    """Change its texts, its embargo, or whether it is archived."""
    return await projects.change(office, person, project_id, body)


@router.delete("/{id}", responses=_ACT)
async def delete_project(
    project_id: ProjectId, confirm: Confirm, office: TheOffice, person: ThePerson
) -> Deleted:
    """Delete a project with its keys, prompts and answers; the statements of its records stay."""
    return await rights.delete_project(office, person, project_id, confirm)


@router.get(
    "/{id}/export",
    response_class=StreamingResponse,
    responses={200: _NDJSON, **documented(400, 401, 403, 404)},
)
async def export_project(project_id: ProjectId, office: TheOffice, person: ThePerson) -> StreamingResponse:
    """All that is kept of a project: a JSON object on each line, prompts and answers included."""
    lines = await rights.export_project(office, person, project_id)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})


@router.get("/{id}/members", responses=_READ)
async def list_members(project_id: ProjectId, office: TheOffice, person: ThePerson) -> MemberList:
    """Who is in a project."""
    return MemberList(data=tuple(await projects.list_members(office, person, project_id)))


@router.put("/{id}/members/{person_id}", responses=_SEND)
async def change_role(
    project_id: ProjectId, person_id: PersonId, body: RoleChange, office: TheOffice, person: ThePerson
) -> MemberList:
    """Give a member another role."""
    await projects.change_role(office, person, project_id, person_id, Role(body.role))
    return await list_members(project_id, office, person)


@router.delete("/{id}/members/{person_id}", status_code=204, responses=_ACT)
async def remove_member(
    project_id: ProjectId, person_id: PersonId, office: TheOffice, person: ThePerson
) -> None:
    """Remove a member, or leave; the member's keys in the project end with it."""
    await projects.remove(office, person, project_id, person_id)


@router.post("/{id}/transfer", responses=_SEND)
async def transfer_project(
    project_id: ProjectId, body: Transfer, office: TheOffice, person: ThePerson
) -> ProjectView:
    """Hand the project to another member; you stay as an admin."""
    await projects.transfer(office, person, project_id, body.person_id)
    return await projects.show(office, person, project_id)


@router.post("/{id}/invitations", status_code=201, responses=_SEND)
async def invite(
    project_id: ProjectId, body: NewInvitation, office: TheOffice, person: ThePerson
) -> InvitationView:
    """Invite whoever owns an address, by a letter to it; the reply is the same for every address."""
    return await projects.invite(office, person, project_id, body.email, Role(body.role))


@router.get("/{id}/invitations", responses=documented(400, 401, 403, 404, 409))
async def list_invitations(project_id: ProjectId, office: TheOffice, person: ThePerson) -> InvitationList:
    """The invitations that are open."""
    return InvitationList(data=tuple(await projects.list_invitations(office, person, project_id)))


@router.delete("/{id}/invitations/{invitation}", status_code=204, responses=_ACT)
async def revoke_invitation(
    project_id: ProjectId, invitation: InvitationId, office: TheOffice, person: ThePerson
) -> None:
    """Take an invitation back."""
    await projects.revoke_invitation(office, person, project_id, invitation)


@invitations.post("/accept", responses=_SEND)
async def accept_invitation(body: InvitationSecret, office: TheOffice, person: ThePerson) -> ProjectView:
    """Become a member of the project that you were invited to."""
    return await projects.accept(office, person, body.invitation)


@invitations.post("/decline", status_code=204, responses=_SEND)
async def decline_invitation(body: InvitationSecret, office: TheOffice, person: ThePerson) -> None:
    """Turn an invitation down, for good."""
    await projects.decline(office, person, body.invitation)
