"""`transom admin …`: the programme, its queue of applications, and decisions on them."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import typer

from transom.cli import output
from transom.cli.applicant import ApplicationId, GrantId, application_sections
from transom.cli.bodies import amounts, checked
from transom.cli.output import exit_on_error
from transom.config import Settings
from transom.errors import ConfigurationError, InvalidRequest
from transom.schema.applications import Act, ApplicationView, Approval, ReasonedAct, Refusal
from transom.schema.grants import Ending
from transom.schema.programme import Programme, ProgrammeView

T = TypeVar("T")

Decision = Literal["approve", "decline", "ask-changes"]

_BODIES: dict[Decision, type[Act | ReasonedAct]] = {
    "approve": Approval,
    "decline": Refusal,
    "ask-changes": ReasonedAct,
}

programme = typer.Typer(help="What is offered, and to whom.", no_args_is_help=True)


def register(admin: typer.Typer) -> None:
    """Add the commands of this module to `transom admin`."""
    for command in (queue, review, decide, end_grant, stats):
        admin.command()(command)
    admin.add_typer(programme, name="programme")


@exit_on_error
def queue() -> None:
    """List what waits for a decision; what was promised first stands first."""
    from transom.access.programme import deciding

    rows = [
        [each.id, each.state, each.tier, each.kind, each.decide_by or "-", "overdue" if each.overdue else ""]
        for each in _do(deciding.queue)
    ]
    output.write_rows(["application", "state", "tier", "kind", "decide by", ""], rows)


@exit_on_error
def review(
    application_id: ApplicationId,
    start: Annotated[bool, typer.Option("--start", help="Take it up for review.")] = False,
) -> None:
    """Show an application as its reviewers see it, with the criteria to decide by."""
    from transom.access.programme import deciding, reading

    view = _do(reading.show, application_id=application_id)
    if start:
        view = _do(deciding.start_review, application_id=application_id, body=Act(version=view.version))
    sections = list(application_sections(view))
    tier = _rules().tiers.get(view.tier)
    if tier is not None and tier.criteria:
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(tier.criteria, 1))
        sections.append(("criteria", numbered))
    output.write_sections(f"{view.id}  {view.state}", sections)


@exit_on_error
def decide(  # one for each option
    application_id: ApplicationId,
    decision: Annotated[Decision, typer.Argument(help="approve, decline or ask-changes.")],
    reason: Annotated[str, typer.Option(help="The applicant reads it.")] = "",
    met: Annotated[str, typer.Option(help="Criteria that are met: `all`, or numbers such as 1,2,4.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="Grant this scope only; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Grant this model only; may be repeated.")] = None,
    quota: Annotated[
        list[str] | None, typer.Option(help="Grant less, such as tokens_total=5000000; may be repeated.")
    ] = None,
    ends: Annotated[str | None, typer.Option(help="Last day of the grant.")] = None,
) -> None:
    """Decide on an application. One that nobody has taken up yet is taken up on the way."""
    from transom.access.programme import deciding, reading

    view = _do(reading.show, application_id=application_id)
    fields: dict[str, Any] = {"version": view.version, "reason": reason}
    narrower: dict[str, Any] = {
        "scopes": scope or None,
        "models": model or None,
        "quotas": amounts(quota or ()),
        "ends": ends,
    }
    if decision == "approve":
        fields |= narrower
    elif any(narrower.values()):
        raise InvalidRequest("Scopes, models, quotas and days are for approvals.")
    if decision != "ask-changes":
        fields["met"] = _criteria(view.tier, met)
    body = checked(_BODIES[decision], fields)
    if view.state == "submitted":
        taken = _do(deciding.start_review, application_id=application_id, body=Act(version=view.version))
        body = body.model_copy(update={"version": taken.version})
    steps: dict[Decision, Callable[..., ApplicationView]] = {
        "approve": deciding.approve,
        "decline": deciding.decline,
        "ask-changes": deciding.ask_changes,
    }
    view = _do(steps[decision], application_id=application_id, body=body)
    output.write("\t".join(filter(None, (view.id, view.state, view.grant))))


@exit_on_error
def end_grant(
    grant_id: GrantId, reason: Annotated[str, typer.Option(help="The project's members read it.")]
) -> None:
    """End a grant before its time, and tell its project."""
    from transom.access.programme import holding

    view = _do(holding.end_grant, grant_id=grant_id, body=checked(Ending, {"reason": reason}))
    output.write(f"{view.id}\t{view.state}\t{view.ends}")


@exit_on_error
def stats() -> None:
    """Show how applications went, tier by tier; anybody may read the same at /v1/programme/statistics."""
    from transom.access.programme.statistics import statistics

    found = _open(lambda desk: desk.read_sync(lambda c, occasion: statistics(c, occasion.programme)))
    rows = [
        [
            tier.tier,
            *map(str, (tier.asked, tier.granted, tier.declined, tier.pending, tier.closed, tier.appeals)),
            tier.median_days_to_decide or "-",
        ]
        for tier in found.tiers
    ]
    output.write_rows(
        ["tier", "asked", "granted", "declined", "pending", "closed", "appeals", "median days"], rows
    )


@programme.command("init")
@exit_on_error
def programme_init() -> None:
    """Write a programme to begin with, full of comments, where there is none yet."""
    from transom.access.programme.programme import default_text

    path = Settings().programme_file
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(default_text())
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already; it was left as it is.") from error
    output.write(str(path))


@programme.command("check")
@exit_on_error
def programme_check() -> None:
    """Say whether the server can read the programme, and whether it has changed since it last did."""
    from transom.access.programme.programme import adopted

    rules = _rules()
    before = _open(lambda desk: desk.database.read_sync(adopted))
    output.write(rules.digest)
    tiers = ", ".join(rules.tiers)
    state = "as in use" if before == rules.digest else "in use from the next start of the server"
    output.note(f"{rules.name}: tiers {tiers}; {state}.")


@programme.command("show")
@exit_on_error
def programme_show() -> None:
    """Print the programme as everybody can read it, as JSON."""
    output.write_json(ProgrammeView.of(_rules()).model_dump_json())


def _criteria(tier: str, met: str) -> list[str]:
    """The tier's criteria, picked by their numbers."""
    criteria = _rules().tier(tier).criteria
    if met == "all":
        return criteria
    numbers = [part.strip() for part in met.split(",") if part.strip()]
    known = {str(number): text for number, text in enumerate(criteria, 1)}
    if unknown := [number for number in numbers if number not in known]:
        raise InvalidRequest(f"{unknown[0]!r} is no criterion; there are 1 to {len(criteria)}.", param="met")
    return [known[number] for number in numbers]


def _rules() -> Programme:
    from transom.access.programme.programme import load

    return load(Settings().programme_file)


def _do(step: Callable[..., T], **arguments: object) -> T:
    """Take one step as the operator at this machine."""
    from transom.access.people.persons import at_the_machine

    caller = at_the_machine(getpass.getuser())

    def work(desk: Any) -> T:  # noqa: ANN401  # a Desk, whose module is not loaded before it is needed
        # What is decided under cites the programme, so it is noted first.
        desk.open()
        return desk.write_sync(partial(step, caller=caller, **arguments))  # type: ignore[no-any-return]

    return _open(work)


def _open(work: Callable[[Any], T]) -> T:
    """Open the desk of this home, do `work` in it, and close it again."""
    from transom.access.programme.desk import Desk
    from transom.app import open_database

    settings = Settings()
    database = open_database(settings)
    try:
        return work(Desk(database, _rules()))
    finally:
        database.close()
