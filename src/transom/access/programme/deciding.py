"""What reviewers do: take up, ask for changes, approve, decline. And what the server decides by itself.

Each function is one step in the sense of `access.programme.desk`, and gives the application as its caller
sees it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from transom.access.people.persons import THE_SERVER, PersonCaller
from transom.access.programme import granting
from transom.access.programme.applications import Application, advance, event_by, from_row, lock_project
from transom.access.programme.desk import Occasion
from transom.access.programme.letters import tell_applicants
from transom.access.programme.standing import meet, standing_in
from transom.access.programme.states import QUEUED, Party, step
from transom.access.programme.views import summary, view
from transom.access.rights.suspensions import refuse_suspended
from transom.errors import Forbidden, InvalidRequest
from transom.schema.applications import (
    Act,
    ApplicationSummary,
    ApplicationView,
    Approval,
    ReasonedAct,
    Refusal,
    State,
)
from transom.schema.canonical import CanonicalJson
from transom.schema.programme import Tier
from transom.storage.tables import applications


def start_review(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Act
) -> ApplicationView:
    """Take an application up; others may still decide on it."""
    application, to, party = meet(connection, caller, application_id, "start_review", body.version)
    event = event_by(caller, party, "start_review", to, occasion.now, reason=body.reason)
    moved = advance(connection, application, body.version, event)
    return view(connection, moved, caller, occasion.now)


def ask_changes(
    connection: Connection,
    occasion: Occasion,
    *,
    caller: PersonCaller,
    application_id: str,
    body: ReasonedAct,
) -> ApplicationView:
    """Give an application back to be changed; the clock stands until it is submitted again."""
    application, to, party = meet(connection, caller, application_id, "ask_changes", body.version)
    event = event_by(caller, party, "ask_changes", to, occasion.now, reason=body.reason)
    moved = advance(connection, application, body.version, event, decide_by=None)
    tell_applicants(connection, moved, occasion.now)
    return view(connection, moved, caller, occasion.now)


def decline(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Refusal
) -> ApplicationView:
    """Say no, and why."""
    application, to, party = meet(connection, caller, application_id, "decline", body.version)
    _check_criteria(occasion.programme.tier(application.tier), body.met)
    moved = advance(
        connection,
        application,
        body.version,
        event_by(caller, party, "decline", to, occasion.now, reason=body.reason, details={"met": body.met}),
        decided=occasion.now,
        decided_by=caller.person_id,
        decide_by=None,
    )
    tell_applicants(connection, moved, occasion.now)
    return view(connection, moved, caller, occasion.now)


def approve(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Approval
) -> ApplicationView:
    """Say yes, to all that is asked or to less: makes, renews or supplements a grant.

    Raises:
        InvalidRequest: a criterion is not ticked; more is granted than was asked or the tier allows; or less,
            and nobody says why.
        Conflict: it was decided meanwhile, or another grant is in the way.
    """
    application, to, party = meet(connection, caller, application_id, "approve", body.version)
    tier = occasion.programme.tier(application.tier)
    _check_criteria(tier, body.met)
    if missing := [each for each in tier.criteria if each not in body.met]:
        raise InvalidRequest(
            f"To approve, each criterion is ticked. Not ticked: {' '.join(missing)}", param="met"
        )
    moved = _grant(connection, occasion, application, caller, (to, party), body)
    return view(connection, moved, caller, occasion.now)


def decide_at_once(connection: Connection, occasion: Occasion, application: Application) -> Application:
    """Approve what was just submitted to an instant tier, in the transaction of its submission."""
    reached = step(application.state, "approve", {"system"})
    body = Approval(version=application.version)
    return _grant(connection, occasion, application, THE_SERVER, reached, body)


def queue(connection: Connection, occasion: Occasion, *, caller: PersonCaller) -> list[ApplicationSummary]:
    """What waits for a reviewer, and this one may review; what was promised first stands first.

    What is paused is not among it.

    Raises:
        Forbidden: the caller does not review.
        Suspended: they are.
    """
    if not caller.reviews:
        raise Forbidden("Only reviewers see the queue; the operator names them.")
    refuse_suspended(connection, f"person:{caller.person_id}")
    waiting = select(applications).where(applications.c.state.in_(QUEUED), applications.c.paused.is_(None))
    rows = (
        connection.execute(waiting.order_by(applications.c.decide_by.nulls_last(), applications.c.id))
        .mappings()
        .all()
    )
    return [
        summary(connection, application, caller, occasion.now)
        for application in map(from_row, rows)
        if "reviewer" in standing_in(connection, application, caller).parties
    ]


def _grant(
    connection: Connection,
    occasion: Occasion,
    application: Application,
    caller: PersonCaller,
    reached: tuple[State, Party],
    body: Approval,
) -> Application:
    lock_project(connection, application.project_id)
    asked = granting.terms_asked(connection, application, occasion.programme, occasion.now)
    terms = granting.narrowed(asked, body)
    grant_id, embargo_months = granting.carry_out(
        connection, application, terms, occasion.programme, caller.person_id, occasion.now
    )
    details: dict[str, CanonicalJson] = {
        "met": body.met,
        "grant": grant_id,
        "granted": terms.described(),
        "as_asked": terms == asked,
        "embargo_months": embargo_months,
    }
    state, party = reached
    moved = advance(
        connection,
        application,
        body.version,
        event_by(caller, party, "approve", state, occasion.now, reason=body.reason, details=details),
        grant_id=grant_id,
        decided=occasion.now,
        decided_by=caller.person_id,
        decide_by=None,
    )
    tell_applicants(connection, moved, occasion.now)
    return moved


def _check_criteria(tier: Tier, met: Sequence[str]) -> None:
    if unknown := [each for each in met if each not in tier.criteria]:
        raise InvalidRequest(
            f"{unknown[0][:100]!r} is not one of the tier's criteria; they are listed at GET /v1/programme.",
            param="met",
        )
