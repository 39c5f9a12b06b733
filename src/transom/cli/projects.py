"""`transom project`: a researcher's projects, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transom.cli.output import exit_on_error, out, write_rows, write_sections
from transom.cli.researcher import BaseUrl
from transom.cli.session import signed_in
from transom.client import administration
from transom.errors import InvalidRequest
from transom.schema.projects import MemberList, ProjectView

app = typer.Typer(help="Your projects.", no_args_is_help=True)
members = typer.Typer(help="Who is in a project.", no_args_is_help=True)
app.add_typer(members, name="members")

ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project, prj_….")]
PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="Id of the person, per_….")]
Role = Annotated[str, typer.Option(help="owner, admin or member.")]
Embargo = Annotated[int | None, typer.Option(help="Months until records open: 0, 3, 6 or 12.")]
Secret = Annotated[str, typer.Argument(metavar="INVITATION", help="The words in the letter, ti_….")]


@app.command("create")
@exit_on_error
def create_project(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    description: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    institution: Annotated[str | None, typer.Option(help="Where you work on it.")] = None,
    embargo_months: Embargo = None,
    base_url: BaseUrl = None,
) -> None:
    """Make a project; you own it."""
    fields = {
        "name": name,
        "description": description,
        "institution": institution,
        "embargo_months": embargo_months,
    }
    with signed_in(base_url) as client:
        _show(client.send(administration.create_project(fields)))


@app.command("list")
@exit_on_error
def list_projects(base_url: BaseUrl = None) -> None:
    """Your projects."""
    with signed_in(base_url) as client:
        found = client.send(administration.projects()).data
    rows = [(each.id, each.name, each.role, f"{each.embargo_months}", each.archived or "-") for each in found]
    write_rows(("id", "name", "your role", "embargo, months", "archived"), rows)


@app.command("show")
@exit_on_error
def show_project(project: ProjectId, base_url: BaseUrl = None) -> None:
    """A project; if anything of it is suspended, also why."""
    with signed_in(base_url) as client:
        _show(client.send(administration.project(project)))


@app.command("edit")
@exit_on_error
def edit_project(  # one for each option
    project: ProjectId,
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    institution: Annotated[str | None, typer.Option(help="Where you work on it.")] = None,
    embargo_months: Embargo = None,
    archived: Annotated[
        bool | None, typer.Option("--archive/--reopen", help="Whether it takes nothing new.")
    ] = None,
    base_url: BaseUrl = None,
) -> None:
    """Change a project's texts or embargo, archive it, or open it again."""
    fields = {
        "name": name,
        "description": description,
        "institution": institution,
        "embargo_months": embargo_months,
        "archived": archived,
    }
    with signed_in(base_url) as client:
        _show(client.send(administration.change_project(project, fields)))


@app.command("export")
@exit_on_error
def export_project(
    project: ProjectId,
    file: Annotated[Path, typer.Argument(help="Where to write it; it must not exist.")],
    base_url: BaseUrl = None,
) -> None:
    """Take all that is kept of a project along, prompts and answers included, as lines of JSON."""
    if file.exists():
        raise InvalidRequest(f"{file} exists; name a new file.", param="file")
    with signed_in(base_url) as client:
        text = client.send(administration.export_project(project))
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text, encoding="utf-8")
    out.print(f"{text.count(chr(10))} lines are in {file}.")


@app.command("delete")
@exit_on_error
def delete_project(
    project: ProjectId,
    confirm: Annotated[str, typer.Option(help="The project's name, to be sure.")],
    base_url: BaseUrl = None,
) -> None:
    """Delete a project with its keys, prompts and answers; the statements of its records stay."""
    with signed_in(base_url) as client:
        gone = client.send(administration.delete_project(project, confirm))
    out.print(
        f"Project {gone.id} is deleted, with the prompts and answers of {gone.openings} records and "
        f"{gone.artifacts} artifacts."
    )


@app.command("invite")
@exit_on_error
def invite(
    project: ProjectId,
    email: Annotated[str, typer.Argument(help="Whom.")],
    role: Role = "member",
    base_url: BaseUrl = None,
) -> None:
    """Invite somebody by a letter to their address."""
    with signed_in(base_url) as client:
        made = client.send(administration.invite(project, email, role))
    out.print(f"Invitation {made.id} is on its way to {made.email}; it can be accepted until {made.expires}.")


@app.command("invitations")
@exit_on_error
def list_invitations(
    project: ProjectId,
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="Take this one back first.")] = None,
    base_url: BaseUrl = None,
) -> None:
    """The invitations that are open."""
    with signed_in(base_url) as client:
        if revoke is not None:
            client.send(administration.revoke_invitation(project, revoke))
        found = client.send(administration.invitations(project)).data
    write_rows(("id", "email", "role", "expires"), [(i.id, i.email, i.role, i.expires) for i in found])


@app.command("accept")
@exit_on_error
def accept_invitation(invitation: Secret, base_url: BaseUrl = None) -> None:
    """Become a member of the project that you were invited to."""
    with signed_in(base_url) as client:
        _show(client.send(administration.accept_invitation(invitation)))


@app.command("decline")
@exit_on_error
def decline_invitation(invitation: Secret, base_url: BaseUrl = None) -> None:
    """Turn an invitation down, for good."""
    with signed_in(base_url) as client:
        client.send(administration.decline_invitation(invitation))
    out.print("The invitation is declined.")


@members.command("list")
@exit_on_error
def list_members(project: ProjectId, base_url: BaseUrl = None) -> None:
    """Everybody in a project."""
    with signed_in(base_url) as client:
        _show_members(client.send(administration.members(project)))


@members.command("role")
@exit_on_error
def change_role(
    project: ProjectId,
    person: PersonId,
    role: Annotated[str, typer.Argument(help="owner, admin or member.")],
    base_url: BaseUrl = None,
) -> None:
    """Give a member another role."""
    with signed_in(base_url) as client:
        _show_members(client.send(administration.change_role(project, person, role)))


@members.command("remove")
@exit_on_error
def remove_member(project: ProjectId, person: PersonId, base_url: BaseUrl = None) -> None:
    """Remove a member, or leave; the member's keys in the project end with it."""
    with signed_in(base_url) as client:
        client.send(administration.remove_member(project, person))
    out.print(f"{person} is no member of {project} any more.")


@members.command("transfer")
@exit_on_error
def transfer_project(project: ProjectId, person: PersonId, base_url: BaseUrl = None) -> None:
    """Hand the project to another member; you stay as an admin."""
    with signed_in(base_url) as client:
        _show(client.send(administration.transfer_project(project, person)))


def _show(project: ProjectView) -> None:
    facts = [
        ("name", project.name),
        ("your role", project.role),
        ("institution", project.institution or "-"),
        ("embargo", f"{project.embargo_months} months"),
        ("created", project.created),
        ("archived", project.archived or "no"),
    ]
    facts += [(f"suspended: {each.subject}", f"{each.since}: {each.reason}") for each in project.suspensions]
    sections = [("project", "\n".join(f"{name}: {value}" for name, value in facts))]
    if project.description:
        sections.append(("description", project.description))
    write_sections(project.id, sections)


def _show_members(found: MemberList) -> None:
    write_rows(("person", "role", "joined"), [(m.person_id, m.role, m.joined) for m in found.data])
