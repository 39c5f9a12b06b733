"""What a person can do with their projects."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from transom.access.keys import issuing
from transom.access.people.persons import PersonCaller
from transom.access.programme import pausing
from transom.access.projects import invitations, members, projects
from transom.access.projects.invitations import Invitation, NewInvitation
from transom.access.projects.projects import Project, Texts
from transom.access.projects.roles import Role
from transom.access.rights import suspensions
from transom.errors import TransomError
from transom.schema.projects import (
    InvitationView,
    MemberView,
    NewProject,
    ProjectChange,
    ProjectView,
    SuspensionView,
)
from transom.services.office import Office


async def create(office: Office, caller: PersonCaller, body: NewProject) -> ProjectView:
    """A new project, owned by the caller; raises as `access.projects.projects.create` does."""
    texts = Texts(name=body.name, description=body.description, institution=body.institution)
    months, by, now = body.embargo_months, caller.person_id, office.now()
    project = await office.database.write(
        lambda connection: projects.create(connection, texts, embargo_months=months, by=by, now=now)
    )
    return _view(project)


async def list_own(office: Office, caller: PersonCaller) -> list[ProjectView]:
    """The caller's projects, oldest first."""
    by = caller.person_id
    return await office.database.read(
        lambda connection: [_shown(connection, each.id, by) for each in projects.list_of(connection, by)]
    )


async def show(office: Office, caller: PersonCaller, project_id: str) -> ProjectView:
    """A project, with what is suspended of it, and why.

    Raises:
        NotFound: the caller has no such project.
    """
    return await office.database.read(lambda connection: _shown(connection, project_id, caller.person_id))


async def change(office: Office, caller: PersonCaller, project_id: str, body: ProjectChange) -> ProjectView:
    """Change what was given, all of it or nothing; while it is archived, what it applies for waits.

    Raises:
        NotFound, Forbidden, Suspended, Conflict, InvalidRequest: as `access.projects.projects.edit`.
    """
    texts = Texts(name=body.name, description=body.description, institution=body.institution)
    by, now = caller.person_id, office.now()

    def write(connection: Connection) -> ProjectView:
        # An archived project is opened before it is edited, and edited before it is archived.
        if body.archived is False:
            projects.archive(connection, project_id, archived=False, by=by, now=now)
        if texts.given or body.embargo_months is not None:
            projects.edit(connection, project_id, texts, body.embargo_months, by=by, now=now)
        if body.archived:
            projects.archive(connection, project_id, archived=True, by=by, now=now)
        if body.archived is not None:
            pausing.follow(connection, f"project:{project_id}", actor=by, party="applicant", now=now)
        return _shown(connection, project_id, by)

    return await office.database.write(write)


async def list_members(office: Office, caller: PersonCaller, project_id: str) -> list[MemberView]:
    """Who is in a project; raises as `access.projects.members` does."""
    found = await office.database.read(
        lambda connection: members.list_members(connection, project_id, by=caller.person_id)
    )
    return [MemberView.model_validate(member) for member in found]


async def change_role(
    office: Office, caller: PersonCaller, project_id: str, person_id: str, role: Role
) -> None:
    """Give a member another role; raises as `access.projects.members` does."""
    by, now = caller.person_id, office.now()
    await office.database.write(
        lambda connection: members.change_role(connection, project_id, person_id, role, by=by, now=now)
    )


async def remove(office: Office, caller: PersonCaller, project_id: str, person_id: str) -> None:
    """End a membership, one's own or another's; raises as `access.projects.members` does."""
    by, now = caller.person_id, office.now()
    await office.database.write(
        lambda connection: members.remove(connection, project_id, person_id, by=by, now=now)
    )
    office.keys.forget()


async def transfer(office: Office, caller: PersonCaller, project_id: str, person_id: str) -> None:
    """Hand the project to another member; raises as `access.projects.members` does."""
    by, now = caller.person_id, office.now()
    await office.database.write(
        lambda connection: members.transfer(connection, project_id, person_id, by=by, now=now)
    )


async def invite(
    office: Office, caller: PersonCaller, project_id: str, email: str, role: Role
) -> InvitationView:
    """Invite whoever owns an address, by a letter to it; the same for every address.

    Raises:
        TransomError, OSError: the letter could not be sent, and the invitation is taken back; or as
            `access.projects.invitations.invite` does.
    """
    peppers, by, now = office.peppers.latest(), caller.person_id, office.now()
    new = await office.database.write(
        lambda connection: invitations.invite(connection, peppers, project_id, email, role, by=by, now=now)
    )
    try:
        await office.mailer.send(new.invitation.email, *_letter(new))
    except (TransomError, OSError):
        await revoke_invitation(office, caller, project_id, new.invitation.id)
        raise
    return _invitation(new.invitation)


async def list_invitations(office: Office, caller: PersonCaller, project_id: str) -> Sequence[InvitationView]:
    """The open invitations of a project; raises as `access.projects.invitations` does."""
    by, now = caller.person_id, office.now()
    found = await office.database.read(
        lambda connection: invitations.list_open(connection, project_id, by=by, now=now)
    )
    return [_invitation(each) for each in found]


async def revoke_invitation(
    office: Office, caller: PersonCaller, project_id: str, invitation_id: str
) -> None:
    """Take an invitation back; raises as `access.projects.invitations` does."""
    by, now = caller.person_id, office.now()
    await office.database.write(
        lambda connection: invitations.revoke(connection, project_id, invitation_id, by=by, now=now)
    )


async def accept(office: Office, caller: PersonCaller, secret: str) -> ProjectView:
    """Join the project that one was invited to; raises as `access.projects.invitations` does."""
    peppers, by, now = office.peppers.latest(), caller.person_id, office.now()

    def write(connection: Connection) -> ProjectView:
        project_id = invitations.accept(connection, peppers, secret, office.email_of, by=by, now=now)
        return _shown(connection, project_id, by)

    return await office.database.write(write)


async def decline(office: Office, caller: PersonCaller, secret: str) -> None:
    """Turn an invitation down, for good; raises as `access.projects.invitations` does."""
    peppers, by, now = office.peppers.latest(), caller.person_id, office.now()
    await office.database.write(
        lambda connection: invitations.decline(connection, peppers, secret, office.email_of, by=by, now=now)
    )


def _shown(connection: Connection, project_id: str, person_id: str) -> ProjectView:
    project = projects.show(connection, project_id, by=person_id)
    own = [f"key:{key.id}" for key in issuing.own_in(connection, project_id, person_id)]
    found = suspensions.in_force(connection, f"project:{project_id}", f"person:{person_id}", *own)
    view = tuple(SuspensionView.model_validate(each) for each in found)
    return _view(project).model_copy(update={"suspensions": view})


def _view(project: Project) -> ProjectView:
    return ProjectView.model_validate(project)


def _invitation(invitation: Invitation) -> InvitationView:
    return InvitationView.model_validate(invitation)


def _letter(new: NewInvitation) -> tuple[str, str]:
    """Subject and text."""
    invitation = new.invitation
    subject = f"Invitation to the project {new.project_name}"
    text = (
        f"You are invited to the project {new.project_name} as {invitation.role}.\n\n"
        f"To accept, sign in with the address {invitation.email}, and run\n\n"
        f"    transom project accept {new.secret}\n\n"
        f"To decline, run `transom project decline` with the same words, or do nothing.\n\n"
        f"It works once, until {invitation.expires:%Y-%m-%d %H:%M} UTC, and for you alone: do not forward "
        "it. If you do not know what this is about, you need not do anything.\n"
    )
    return subject, text
