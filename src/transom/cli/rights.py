"""`transom terms` and `transom trail`: what is asked of a researcher, and what was done about them."""

from __future__ import annotations

from typing import Annotated

import typer

from transom.cli.output import exit_on_error, out, write, write_rows
from transom.cli.researcher import BaseUrl
from transom.cli.session import signed_in
from transom.client import Client, administration
from transom.schema.projects import TrailEntry

terms = typer.Typer(help="What the operator asks you to accept.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(help="Such as privacy-2.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(terms, name="terms")
    app.command("trail")(show_trail)


@terms.command("list")
@exit_on_error
def list_terms(base_url: BaseUrl = None) -> None:
    """The versions in force, and which you have yet to accept."""
    with signed_in(base_url) as client:
        found = client.send(administration.terms()).data
        asked = client.send(administration.standing()).asked
    rows = [
        (each.version, each.published, "to accept" if each.version in asked else "accepted") for each in found
    ]
    write_rows(("version", "published", "you"), rows)


@terms.command("show")
@exit_on_error
def show_terms(version: Version, base_url: BaseUrl = None) -> None:
    """The text of a version."""
    with Client(base_url, api_key="") as client:
        write(client.send(administration.terms_version(version)).text)


@terms.command("accept")
@exit_on_error
def accept_terms(version: Version, base_url: BaseUrl = None) -> None:
    """Accept a version that is in force."""
    with signed_in(base_url) as client:
        accepted = client.send(administration.accept_terms(version))
    out.print(f"You accepted {accepted.version} ({accepted.digest}) at {accepted.accepted}.")


@exit_on_error
def show_trail(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many entries.")] = 20,
    before: Annotated[int | None, typer.Option(help="Only those before this number.")] = None,
    base_url: BaseUrl = None,
) -> None:
    """What was done about you and your projects, newest first: the operator's looks at your data included."""
    with signed_in(base_url) as client:
        page = client.send(administration.trail(before, limit))
    write_entries(page.data)


def write_entries(entries: tuple[TrailEntry, ...]) -> None:
    """Answer with entries of the trail."""
    rows = [
        (str(e.number), e.at, e.actor, e.action, e.subject, e.project_id or "-", e.reason or "-")
        for e in entries
    ]
    write_rows(("no.", "at", "actor", "action", "subject", "project", "reason"), rows)
