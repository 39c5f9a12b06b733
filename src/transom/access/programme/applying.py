"""What applicants do: draft, change, submit, withdraw, appeal; and what both sides say on the way.

Each function is one step in the sense of `access.programme.desk`, and gives the application as its caller
sees it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from transom.access.people.persons import PersonCaller
from transom.access.programme import granting
from transom.access.programme.applications import Application, add, advance, append, event_by, load, new_id
from transom.access.programme.deciding import decide_at_once
from transom.access.programme.desk import Occasion
from transom.access.programme.grants import load_grant, unknown_grant
from transom.access.programme.letters import tell_reviewers
from transom.access.programme.standing import meet, require_manager, standing_in
from transom.access.programme.states import step
from transom.access.programme.views import view
from transom.errors import Conflict, InvalidRequest
from transom.schema.applications import (
    Act,
    ApplicationView,
    Asked,
    Changes,
    Comment,
    NewApplication,
    ReasonedAct,
)
from transom.schema.programme import Tier
from transom.storage.tables import applications


def create(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, body: NewApplication
) -> ApplicationView:
    """Make a draft.

    Raises:
        NotFound: the caller is not in that project, or it has no such grant.
        Forbidden: the caller does not manage the project.
        InvalidRequest: there is no such tier, or kind, tier and grant do not fit together.
    """
    require_manager(connection, body.project, caller)
    asked = Asked.model_validate(body.model_dump(exclude={"project", "kind", "grant"}))
    occasion.programme.tier(asked.tier)
    _check_grant(connection, body)
    application = Application(
        id=new_id("app"),
        project_id=body.project,
        applicant=caller.person_id,
        kind=body.kind,
        intent=body.kind,
        state="draft",
        version=1,
        events=1,
        asked=asked,
        grant_id=body.grant,
        appeal_of=None,
        blind=False,
        created=occasion.now,
        changed=occasion.now,
    )
    add(connection, application, event_by(caller, "applicant", "create", "draft", occasion.now))
    return view(connection, application, caller, occasion.now)


def edit(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Changes
) -> ApplicationView:
    """Replace what is asked for, in a draft or where changes were asked for."""
    application, to, party = meet(connection, caller, application_id, "edit", body.version)
    changes = body.model_dump(exclude={"version", "reset"}, exclude_none=True)
    reset: set[str] = set(body.reset)
    if not changes and not reset:
        raise InvalidRequest("Name at least one field to replace.", code="missing_parameter")
    kept = application.asked.model_dump(exclude=reset)
    asked = Asked.model_validate(kept | changes)
    occasion.programme.tier(asked.tier)
    if application.grant_id is not None and asked.tier != application.tier:
        raise InvalidRequest("The tier is that of the grant; for another, apply anew.", param="tier")
    fields = sorted(reset | changes.keys())
    event = event_by(caller, party, "edit", to, occasion.now, details={"fields": fields})
    moved = advance(connection, application, body.version, event, asked=asked)
    return view(connection, moved, caller, occasion.now)


def submit(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Act
) -> ApplicationView:
    """Hand an application in. That of an instant tier is approved in the same breath.

    Raises:
        InvalidRequest, Conflict: see `granting.check_submission`.
    """
    application, to, party = meet(connection, caller, application_id, "submit", body.version)
    granting.check_submission(connection, application, occasion.programme, occasion.now, occasion.served)
    tier = occasion.programme.tier(application.tier)
    moved = advance(
        connection,
        application,
        body.version,
        event_by(caller, party, "submit", to, occasion.now, reason=body.reason),
        submitted=application.submitted or occasion.now,
        decide_by=_promised(tier, occasion.now),
        # What a reviewer has read blind stays so, whatever tier it asks for next.
        blind=application.blind or tier.blind,
    )
    if tier.review or moved.kind == "appeal":
        tell_reviewers(connection, moved, occasion.now)
    else:
        moved = decide_at_once(connection, occasion, moved)
    return view(connection, moved, caller, occasion.now)


def withdraw(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Act
) -> ApplicationView:
    """Give an application up."""
    application, to, party = meet(connection, caller, application_id, "withdraw", body.version)
    event = event_by(caller, party, "withdraw", to, occasion.now, reason=body.reason)
    moved = advance(connection, application, body.version, event, decide_by=None, paused=None)
    return view(connection, moved, caller, occasion.now)


def comment(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str, body: Comment
) -> ApplicationView:
    """Say something that the other side reads."""
    application = load(connection, application_id)
    standing = standing_in(connection, application, caller)
    to, party = step(application.state, "comment", standing.parties, standing.barred)
    append(connection, application, event_by(caller, party, "comment", to, occasion.now, reason=body.text))
    return view(connection, application, caller, occasion.now)


def appeal(
    connection: Connection,
    occasion: Occasion,
    *,
    caller: PersonCaller,
    application_id: str,
    body: ReasonedAct,
) -> ApplicationView:
    """Ask for another decision on what was declined, by another reviewer. Once.

    Returns:
        The appeal: an application of its own, submitted.
    """
    declined, to, party = meet(connection, caller, application_id, "appeal", body.version)
    _refuse_second_appeal(connection, declined)
    now = occasion.now
    appealing = replace(
        declined,
        id=new_id("app"),
        applicant=caller.person_id,
        kind="appeal",
        state="submitted",
        version=1,
        events=1,
        appeal_of=declined.id,
        created=now,
        changed=now,
        submitted=now,
        decide_by=_promised(occasion.programme.tier(declined.tier), now),
        decided=None,
        decided_by=None,
    )
    granting.check_submission(connection, appealing, occasion.programme, now, occasion.served)
    event = event_by(caller, party, "appeal", to, now, reason=body.reason, details={"appeal": appealing.id})
    advance(connection, declined, body.version, event)
    add(connection, appealing, event_by(caller, party, "submit", "submitted", now, reason=body.reason))
    tell_reviewers(connection, appealing, now)
    return view(connection, appealing, caller, now)


def _check_grant(connection: Connection, body: NewApplication) -> None:
    if body.kind == "new":
        if body.grant is not None:
            raise InvalidRequest("Only a renewal or a supplement is about a grant.", param="grant")
        return
    if body.grant is None:
        raise InvalidRequest(f"Say which grant the {body.kind} is for.", param="grant")
    grant = load_grant(connection, body.grant)
    if grant.project_id != body.project:
        raise unknown_grant(body.grant)
    if grant.tier != body.tier:
        raise InvalidRequest(f"The grant is of the tier {grant.tier}; name that.", param="tier")


def _promised(tier: Tier, now: datetime) -> datetime | None:
    return None if tier.decision_days is None else now + timedelta(days=tier.decision_days)


def _refuse_second_appeal(connection: Connection, declined: Application) -> None:
    if declined.kind == "appeal":
        raise Conflict("This is the decision on an appeal, and there is none against it. You may apply anew.")
    query = select(applications.c.id).where(applications.c.appeal_of == declined.id)
    if (earlier := connection.execute(query).scalar()) is not None:
        raise Conflict(f"This was appealed already: see {earlier}. Nobody appeals twice.")
