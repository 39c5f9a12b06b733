"""Commands for whoever applies: `apply`, `application …`, `grant …`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from transom.cli import output
from transom.cli.bodies import amounts, checked
from transom.cli.output import exit_on_error
from transom.cli.researcher import AsJson, BaseUrl
from transom.cli.session import signed_in
from transom.client import Client, programme
from transom.errors import InvalidRequest, TransomError
from transom.schema.applications import RESETTABLE, ApplicationView, Changes, NewApplication
from transom.schema.budgets import Quotas
from transom.schema.grants import GrantView

ApplicationId = Annotated[str, typer.Argument(metavar="ID", help="An application's id, such as app_….")]
GrantId = Annotated[str, typer.Argument(metavar="ID", help="A grant's id, such as grt_….")]

TEMPLATE = """\
# An application. What is commented out may stay so. Send it with: transom apply FILE
# Tiers, scopes and criteria of the server are at /v1/programme.

project = "prj_…"
tier = "open"

# What do you want to find out, and why with this model?
purpose = \"\"\"
\"\"\"

# What will you do with the answers, so that somebody else could do the same?
# method = ""

# "all" is everything that the tier offers; else name what you need.
# scopes = ["model:sample", "model:logprobs"]
# models = ["smollm2-135m-instruct"]

# First and last day.
# starts = 2026-02-01
# ends = 2026-06-30

# Who you are is asked here and nowhere else: a blind review leaves it out.
# institution = ""
# funding = ""

# Write "none" where there is none.
# conflicts = ""
# ethics = ""

# How many months after it was made each of the project's records stays closed: 0, 3, 6 or 12.
# Where the project has a longer embargo, that stays.
# embargo_months = 0

# To go on with a grant, or to add to it: kind is renewal or supplement, and grant its id.
# kind = "renewal"
# grant = "grt_…"

# What is left out is the tier's; of a supplement, what is to be added.
# [quotas]
# tokens_total = 1_000_000
"""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    application = typer.Typer(no_args_is_help=True, help="Applications for access.")
    application.command("list")(application_list)
    application.command("show")(application_show)
    application.command("withdraw")(application_withdraw)
    application.command("comment")(application_comment)
    application.command("appeal")(application_appeal)
    grant = typer.Typer(no_args_is_help=True, help="Grants: what your projects may do.")
    grant.command("list")(grant_list)
    grant.command("show")(grant_show)
    grant.command("progress")(grant_progress)
    app.command()(apply)
    app.add_typer(application, name="application")
    app.add_typer(grant, name="grant")


@exit_on_error
def apply(  # noqa: PLR0913, PLR0917  # one for each option
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file; `transom apply --template` prints one.")
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a file to fill in, and do nothing else.")
    ] = False,
    project: Annotated[str | None, typer.Option(help="For which project.")] = None,
    tier: Annotated[str | None, typer.Option(help="For which tier.")] = None,
    purpose: Annotated[str | None, typer.Option(help="What you want to find out.")] = None,
    method: Annotated[str | None, typer.Option(help="What you will do with the answers.")] = None,
    kind: Annotated[str | None, typer.Option(help="new, renewal or supplement.")] = None,
    grant: Annotated[str | None, typer.Option(help="The grant to renew or to supplement.")] = None,
    quota: Annotated[
        list[str] | None, typer.Option(help="Such as tokens_total=5000000; may be repeated.")
    ] = None,
    change: Annotated[
        str | None, typer.Option(metavar="ID", help="Change this application instead of making one.")
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Keep it as a draft; do not submit it.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
) -> None:
    """Apply for access, from a file or from options. In an instant tier the grant comes at once."""
    if template:
        output.write(TEMPLATE, end="")
        return
    given: dict[str, object] = {"project": project, "tier": tier, "purpose": purpose, "method": method}
    given |= {"kind": kind, "grant": grant, "quotas": amounts(quota or ())}
    fields = _read(file) | {name: value for name, value in given.items() if value is not None}
    with signed_in(base_url) as client:
        if change:
            # A file is the whole application: what it leaves out is not asked for any more.
            reset = [] if file is None else [name for name in RESETTABLE if name not in fields]
            application = _change(client, change, fields, reset)
        else:
            application = _create(client, fields)
        if not draft:
            application = _submit(client, application)
    _report(application, as_json=as_json)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}") from error


def _create(client: Client, fields: Mapping[str, Any]) -> ApplicationView:
    if "grant" in fields and not {"project", "tier"} <= fields.keys():
        known = client.send(programme.grant(str(fields["grant"])))
        fields = {"project": known.project, "tier": known.tier} | dict(fields)
    body = checked(NewApplication, fields)
    return client.send(programme.create(body.model_dump(mode="json", exclude_none=True)))


def _change(
    client: Client, application_id: str, fields: Mapping[str, Any], reset: Sequence[str]
) -> ApplicationView:
    before = client.send(programme.application(application_id))
    changes = {name: value for name, value in fields.items() if name not in {"project", "kind", "grant"}}
    if not changes and not reset:
        return before
    body = checked(Changes, changes | {"version": before.version, "reset": list(reset)})
    return client.send(programme.change(application_id, body.model_dump(mode="json", exclude_none=True)))


def _submit(client: Client, application: ApplicationView) -> ApplicationView:
    try:
        return client.send(programme.act(application.id, "submit", {"version": application.version}))
    except TransomError as error:
        error.add_note(
            f"It is kept as {application.id}; mend it with: transom apply FILE --change {application.id}"
        )
        raise


def _report(application: ApplicationView, *, as_json: bool) -> None:
    if as_json:
        output.write_json(application.model_dump_json())
        return
    output.write("\t".join((application.id, application.state, application.grant or "")).rstrip())
    if application.decide_by is not None:
        output.note(f"A decision is promised by {application.decide_by}.")
    elif application.state == "approved":
        output.note(f"Granted: transom grant show {application.grant}")


@exit_on_error
def application_list(
    limit: Annotated[int, typer.Option(min=1, max=100, help="Applications on a page.")] = 20,
    after: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
) -> None:
    """List the applications of your projects, newest first."""
    with signed_in(base_url) as client:
        text, page = client.send(programme.applications(after, limit).with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [
        [each.id, each.state, each.kind, each.tier, each.project or "", each.changed] for each in page.data
    ]
    output.write_rows(["application", "state", "kind", "tier", "project", "changed"], rows)
    if page.after is not None:
        output.note(f"more: transom application list --limit {limit} --after {page.after}")


@exit_on_error
def application_show(
    application_id: ApplicationId, as_json: AsJson = False, base_url: BaseUrl = None
) -> None:
    """Show an application, and all that happened to it."""
    with signed_in(base_url) as client:
        text, view = client.send(programme.application(application_id).with_text())
    if as_json:
        output.write_json(text)
    else:
        output.write_sections(f"{view.id}  {view.state}", list(application_sections(view)))


def application_sections(view: ApplicationView) -> Iterator[tuple[str, str]]:
    """An application in headed texts."""
    facts = {
        "tier": view.tier,
        "kind": view.kind if view.kind == view.intent else f"{view.kind} ({view.intent})",
        "version": str(view.version),
        "project": view.project,
        "applicant": view.applicant,
        "institution": view.asked.institution,
        "grant": view.grant,
        "submitted": view.submitted,
        "decide by": view.decide_by,
        "paused": view.paused and f"since {view.paused}",
        "decided": view.decided,
        "you may": ", ".join(view.may),
    }
    yield "application", _lines(facts)
    asked = view.asked
    yield (
        "asked",
        _lines(
            {
                "scopes": _names(asked.scopes),
                "models": _names(asked.models),
                "quotas": quota_text(asked.quotas),
                "dates": f"{asked.starts or 'the decision'} to {asked.ends or 'as late as can be'}",
                "embargo": f"{asked.embargo_months} months",
                "funding": asked.funding,
            }
        ),
    )
    for question in ("purpose", "method", "conflicts", "ethics"):
        if answer := getattr(asked, question).strip():
            yield question, answer
    yield "events", "\n".join(_event_lines(view))


def quota_text(quotas: Quotas) -> str:
    """Quotas on one line."""
    return ", ".join(f"{name} {amount:,}" for name, amount in quotas.amounts()) or "as the tier has them"


def _event_lines(view: ApplicationView) -> Iterator[str]:
    for event in view.events:
        said = "" if event.reason is None else f": {event.reason}"
        yield f"{event.at}  {event.actor}  {event.action.replace('_', ' ')}{said}"


def _names(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)


def _lines(facts: Mapping[str, str | None]) -> str:
    return "\n".join(f"{name:<12} {value}" for name, value in facts.items() if value)


@exit_on_error
def application_withdraw(application_id: ApplicationId, base_url: BaseUrl = None) -> None:
    """Give an application up."""
    _act(application_id, "withdraw", {}, base_url)


@exit_on_error
def application_comment(
    application_id: ApplicationId,
    text: Annotated[str, typer.Argument(help="What the other side should read.")],
    base_url: BaseUrl = None,
) -> None:
    """Say something to the reviewers, or to the applicant."""
    with signed_in(base_url) as client:
        _report(client.send(programme.act(application_id, "comment", {"text": text})), as_json=False)


@exit_on_error
def application_appeal(
    application_id: ApplicationId,
    reason: Annotated[str, typer.Option(help="What the decision overlooked.")],
    base_url: BaseUrl = None,
) -> None:
    """Ask for another reviewer's decision on what was declined. Once."""
    _act(application_id, "appeal", {"reason": reason}, base_url)


def _act(application_id: str, what: programme.Act, body: dict[str, str], base_url: str | None) -> None:
    with signed_in(base_url) as client:
        version = client.send(programme.application(application_id)).version
        _report(client.send(programme.act(application_id, what, body | {"version": version})), as_json=False)


@exit_on_error
def grant_list(
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
) -> None:
    """List the grants of your projects, past ones too, newest first."""
    with signed_in(base_url) as client:
        text, page = client.send(programme.grants(project).with_text())
    if as_json:
        output.write_json(text)
        return
    rows = [[each.id, each.state, each.tier, each.project, each.ends] for each in page.data]
    output.write_rows(["grant", "state", "tier", "project", "ends"], rows)


@exit_on_error
def grant_show(grant_id: GrantId, as_json: AsJson = False, base_url: BaseUrl = None) -> None:
    """Show a grant: what it allows, how much of it, and until when."""
    with signed_in(base_url) as client:
        text, view = client.send(programme.grant(grant_id).with_text())
    if as_json:
        output.write_json(text)
    else:
        output.write_sections(f"{view.id}  {view.state}", list(_grant_sections(view)))


def _grant_sections(view: GrantView) -> Iterator[tuple[str, str]]:
    held = f"{view.holdback_percent} % of the totals, until a progress report" * bool(view.holdback_percent)
    facts = {
        "tier": view.tier,
        "project": view.project,
        "from": view.starts,
        "until": view.ends,
        "embargo": f"{view.embargo_months} months",
        "held back": held,
        "programme": view.programme,
    }
    yield "grant", _lines(facts)
    yield "allows", _lines({"scopes": ", ".join(view.scopes), "models": _names(view.models)})
    amounts = dict(view.granted.amounts())
    usable = dict(view.quotas.amounts())
    yield (
        "quotas",
        "\n".join(
            f"{name:<20} {usable[name]:>18,}"
            + (f"  of {amounts[name]:,}" if amounts[name] != usable[name] else "")
            for name in usable
        )
        or "no limits",
    )
    if view.changes:
        yield (
            "changes",
            "\n".join(
                f"{each.at}  {each.actor}  {each.kind}{': ' + each.reason if each.reason else ''}"
                for each in view.changes
            ),
        )


@exit_on_error
def grant_progress(
    grant_id: GrantId,
    report: Annotated[str, typer.Argument(help="What was done so far.")],
    base_url: BaseUrl = None,
) -> None:
    """Report on a grant's progress; releases what is held back."""
    with signed_in(base_url) as client:
        view = client.send(programme.progress(grant_id, report))
    output.write(f"{view.id}\t{quota_text(view.quotas)}")
