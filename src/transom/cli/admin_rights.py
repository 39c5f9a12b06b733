"""`transom admin`: suspensions, terms, the trail, and looking at a researcher's record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.output import exit_on_error, note, out, write_json, write_rows
from transom.cli.premises import in_office, opened_office
from transom.errors import InvalidRequest, OperatorError

if TYPE_CHECKING:
    from transom.services.people.suspensions import Told

terms = typer.Typer(help="What people are asked to accept.", no_args_is_help=True)
records = typer.Typer(help="Records of researchers, which are theirs.", no_args_is_help=True)

Subject = Annotated[str, typer.Argument(help="key:ID, person:ID or project:ID.")]
Reason = Annotated[str, typer.Option(help="Why; who is affected reads it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(suspend)
    app.command()(lift)
    app.command("trail")(show_trail)
    app.add_typer(terms, name="terms")
    app.add_typer(records, name="record")


@exit_on_error
def suspend(subject: Subject, reason: Reason) -> None:
    """Refuse all requests of a key, a person or a project, and write to whom it affects."""
    from transom.services.people import suspensions

    _say(in_office(lambda office, caller: suspensions.suspend(office, caller, subject, reason)))
    out.print(f"{subject} is suspended, everywhere within two seconds.")


@exit_on_error
def lift(subject: Subject, reason: Reason) -> None:
    """Undo a suspension, and write to whom it affects."""
    from transom.services.people import suspensions

    _say(in_office(lambda office, caller: suspensions.lift(office, caller, subject, reason)))
    out.print(f"{subject} is suspended no longer.")


@exit_on_error
def show_trail(
    check: Annotated[bool, typer.Option("--check", help="Verify the chain instead of printing it.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many entries.")] = 50,
    before: Annotated[int | None, typer.Option(help="Only those before this number.")] = None,
) -> None:
    """Every administrative act, newest first."""
    from transom.access.rights import trail

    with opened_office() as office:
        if check:
            problems = office.database.read_sync(lambda connection: list(trail.broken(connection)))
            if problems:
                raise OperatorError("The trail was tampered with: " + "; ".join(problems))
            out.print("The chain of the trail holds.")
            return
        found = office.database.read_sync(
            lambda connection: trail.entries(connection, before=before, limit=limit)
        )
    rows = [
        (
            str(each.number),
            f"{each.entry.at:%Y-%m-%d %H:%M:%S}",
            each.entry.actor,
            each.entry.action,
            each.entry.subject,
            each.entry.project_id or "-",
            each.entry.reason or "-",
        )
        for each in found
    ]
    write_rows(("no.", "at", "actor", "action", "subject", "project", "reason"), rows)


@terms.command("publish")
@exit_on_error
def publish_terms(
    file: Annotated[Path, typer.Argument(help="The text, in UTF-8.")],
    kind: Annotated[str, typer.Option(help="terms, privacy, or another short word.")],
) -> None:
    """Put a text in force: people's keys ask nothing new until they accepted it."""
    from transom.services.people.terms import publish

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read as text: {error}.", param="file") from error
    made = in_office(lambda office, caller: publish(office, caller, kind, text))
    out.print(f"{made.version} is in force: {made.digest}")


@terms.command("list")
@exit_on_error
def list_terms() -> None:
    """The versions in force."""
    from transom.services.people.terms import list_in_force

    found = in_office(lambda office, _: list_in_force(office))
    write_rows(("version", "published", "digest"), [(t.version, t.published, t.digest) for t in found])


@records.command("show")
@exit_on_error
def show_record(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="A record's id, rec_….")], reason: Reason
) -> None:
    """Read a researcher's record, prompts and answers included. They read in the trail that you did."""
    from transom.services.people.rights import read_record

    view = in_office(lambda office, caller: read_record(office, caller, record_id, reason))
    note("That you read it, and why, is in the trail, where the researcher reads it.")
    write_json(view.model_dump_json())


def _say(told: Told) -> None:
    if told.missed:
        note(f"No letter reached {', '.join(told.missed)}: tell them in another way.")
