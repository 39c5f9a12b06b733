"""What may be asked for and granted: never more than the tier allows, nor than was asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection

from transom.access.programme.applications import Application, new_id
from transom.access.programme.grants import (
    Grant,
    GrantChange,
    add_grant,
    change_grant,
    grants_of,
    locked_grant,
)
from transom.access.projects.projects import lengthen_embargo
from transom.errors import Conflict, InvalidRequest
from transom.schema.applications import Approval, Asked
from transom.schema.budgets import Quotas
from transom.schema.canonical import CanonicalJson
from transom.schema.programme import Models, Programme, Tier

FARTHEST_START = timedelta(days=365)
"""How far ahead a grant can begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is asked for, or granted, with nothing left open."""

    scopes: frozenset[str]
    models: Models
    quotas: Quotas
    """Of a supplement, what is added."""
    starts: datetime
    ends: datetime

    def described(self) -> dict[str, CanonicalJson]:
        """As an event shows it."""
        return {
            "scopes": sorted(self.scopes),
            "models": self.models,
            "quotas": dict(self.quotas.amounts()),
            "starts": self.starts.isoformat(),
            "ends": self.ends.isoformat(),
        }


def check_submission(
    connection: Connection,
    application: Application,
    programme: Programme,
    now: datetime,
    served: Collection[str] | None = None,
) -> None:
    """Pass an application that could be granted as it is.

    Args:
        connection: to the database.
        application: as it would be submitted.
        programme: what is offered.
        now: when.
        served: names of the models that there are; None where nobody knows.

    Raises:
        InvalidRequest: an answer is missing, or more is asked for than the tier allows; `param` names it.
        Conflict: there is a grant already that this would double, or there is none to renew or supplement.
    """
    asked, tier = application.asked, programme.tier(application.tier)
    for question in tier.asks:
        if not getattr(asked, question).strip():
            raise InvalidRequest(
                f"The tier {application.tier} wants an answer here before it can be submitted.",
                param=question,
                code="missing_parameter",
            )
    _check_models(asked, tier, served)
    terms_asked(connection, application, programme, now)


def terms_asked(
    connection: Connection, application: Application, programme: Programme, now: datetime
) -> Terms:
    """What an application asks for, and the tier's own where it says nothing.

    Raises:
        InvalidRequest, Conflict: as `check_submission`.
    """
    tier = programme.tier(application.tier)
    if application.intent == "new":
        _refuse_second(grants_of(connection, [application.project_id]), application, tier, now)
        return _new_terms(application.asked, tier, now)
    grant = _grant_meant(connection, application)
    if application.intent == "renewal":
        return _renewal_terms(application.asked, grant, tier, now)
    return _supplement_terms(application.asked, grant, tier, now)


def narrowed(terms: Terms, approval: Approval) -> Terms:
    """What a reviewer grants of what was asked for.

    Raises:
        InvalidRequest: it is more, or it is less and no reason is given.
    """
    granted = Terms(
        scopes=terms.scopes if approval.scopes is None else frozenset(approval.scopes),
        models=terms.models if approval.models is None else sorted(set(approval.models)),
        quotas=terms.quotas if approval.quotas is None else approval.quotas.filled(terms.quotas),
        starts=terms.starts,
        ends=terms.ends if approval.ends is None else _end_of(approval.ends),
    )
    for name, chosen in (("scopes", granted.scopes), ("models", granted.models)):
        if not chosen:
            raise InvalidRequest("Grant at least one, or decline.", param=name)
    if more := sorted(granted.scopes - terms.scopes):
        raise InvalidRequest(f"{', '.join(more)} was not asked for.", param="scopes")
    if terms.models != "all" and (more := sorted(set(granted.models) - set(terms.models))):
        raise InvalidRequest(f"{', '.join(more)} was not asked for.", param="models")
    if beyond := granted.quotas.beyond(terms.quotas):
        raise InvalidRequest("More of this than was asked for.", param=f"quotas.{beyond[0]}")
    if granted.ends > terms.ends or granted.ends <= granted.starts:
        raise InvalidRequest(f"A last day up to {_last_day(terms.ends)} can be granted.", param="ends")
    if granted != terms and not approval.reason.strip():
        raise InvalidRequest("Say why less is granted than was asked for.", param="reason")
    return granted


def carry_out(
    connection: Connection,
    application: Application,
    terms: Terms,
    programme: Programme,
    actor: str,
    now: datetime,
) -> tuple[str, int]:
    """Make, renew or supplement the grant, in the transaction of the decision; its embargo too.

    Returns:
        The grant's id, and the project's embargo in months.
    """
    months = lengthen_embargo(
        connection,
        application.project_id,
        application.asked.embargo_months,
        application=application.id,
        asked_by=application.applicant,
        by=actor,
        now=now,
    )
    if application.intent == "new":
        grant = _new_grant(application, terms, programme, months, now)
        add_grant(connection, grant, actor)
        return grant.id, months
    assert application.grant_id is not None  # noqa: S101  # as `create` saw to
    more = terms.quotas if application.intent == "supplement" else None
    ends = terms.ends if application.intent == "renewal" else None
    change = GrantChange(
        at=now, actor=actor, kind=application.intent, application_id=application.id, quotas=more, ends=ends
    )
    change_grant(connection, locked_grant(connection, application.grant_id), change)
    return application.grant_id, months


def _new_grant(
    application: Application, terms: Terms, programme: Programme, embargo_months: int, now: datetime
) -> Grant:
    tier = programme.tier(application.tier)
    return Grant(
        id=new_id("grt"),
        project_id=application.project_id,
        application_id=application.id,
        tier=application.tier,
        rank=programme.rank(application.tier),
        programme=programme.digest,
        scopes=terms.scopes,
        models=terms.models,
        given=terms.quotas,
        holdback_percent=tier.holdback(terms.quotas),
        embargo_months=embargo_months,
        starts=terms.starts,
        planned_end=terms.ends,
        created=now,
    )


def _new_terms(asked: Asked, tier: Tier, now: datetime) -> Terms:
    scopes = frozenset(tier.scopes if asked.scopes == "all" else asked.scopes)
    if not scopes or (beyond := sorted(scopes - set(tier.scopes))):
        said = f"The tier {asked.tier} has no {', '.join(beyond)}" if scopes else "Nothing is asked for"
        raise InvalidRequest(f"{said}; it offers {', '.join(tier.scopes)}.", param="scopes")
    quotas = asked.quotas.filled(tier.quotas)
    _refuse_beyond(quotas, tier, asked.tier)
    starts = now if asked.starts is None else max(now, _start_of(asked.starts))
    if starts - now > FARTHEST_START:
        raise InvalidRequest(
            f"A first day up to {(now + FARTHEST_START).date()} can be asked for.", param="starts"
        )
    ends = _ends(asked.ends, starts, tier)
    models: Models = tier.models if asked.models == "all" else asked.models
    models = models if models == "all" else sorted(set(models))
    return Terms(scopes=scopes, models=models, quotas=quotas, starts=starts, ends=ends)


def _renewal_terms(asked: Asked, grant: Grant, tier: Tier, now: datetime) -> Terms:
    if any(True for _ in asked.quotas.amounts()):
        raise InvalidRequest(
            "A renewal extends the dates; for more of a budget, ask for a supplement.", param="quotas"
        )
    ends = _ends(asked.ends, now, tier)
    if ends <= grant.ends:
        raise InvalidRequest(
            f"The grant lasts until {_last_day(grant.ends)} as it is; name a later day, "
            f"up to {(now + timedelta(days=tier.duration_days)).date()}.",
            param="ends",
        )
    return Terms(scopes=grant.scopes, models=grant.models, quotas=Quotas(), starts=grant.starts, ends=ends)


def _supplement_terms(asked: Asked, grant: Grant, tier: Tier, now: datetime) -> Terms:
    if asked.starts is not None or asked.ends is not None:
        raise InvalidRequest(
            "A supplement leaves the dates; to extend them, ask for a renewal.", param="ends"
        )
    more = dict(asked.quotas.amounts())
    if not any(more.values()):
        raise InvalidRequest("Say how much is to be added.", param="quotas", code="missing_parameter")
    limited = dict(grant.granted.amounts())
    if free := sorted(more.keys() - limited.keys()):
        raise InvalidRequest("This has no limit as it is; leave it out.", param=f"quotas.{free[0]}")
    if grant.state(now) not in {"in_force", "to_come"}:
        raise Conflict(f"The grant {grant.id} is no longer in force; renew it first.")
    _refuse_beyond(grant.granted.plus(asked.quotas), tier, grant.tier)
    return Terms(
        scopes=grant.scopes, models=grant.models, quotas=asked.quotas, starts=grant.starts, ends=grant.ends
    )


def _grant_meant(connection: Connection, application: Application) -> Grant:
    """The grant to renew or to supplement."""
    assert application.grant_id is not None  # noqa: S101  # as `create` saw to
    grant = locked_grant(connection, application.grant_id)
    if grant.ended is not None:
        raise Conflict(f"The grant {grant.id} was ended: {grant.ended.reason}. Apply for a new one.")
    return grant


def _refuse_second(every: Iterable[Grant], application: Application, tier: Tier, now: datetime) -> None:
    for grant in every:
        if grant.tier != application.tier or now >= grant.scheduled_end:
            continue
        if grant.ended is None:
            raise Conflict(
                f"The project has the grant {grant.id} of this tier, until {_last_day(grant.ends)}. "
                "Ask for a renewal or a supplement of it."
            )
        # What was ended is not to be had again at once by asking the machine.
        if not tier.review:
            raise Conflict(
                f"The project's grant {grant.id} of this tier was ended: {grant.ended.reason}. "
                f"Apply for it again after {_last_day(grant.scheduled_end)}, or for a tier that is reviewed."
            )


def _check_models(asked: Asked, tier: Tier, served: Collection[str] | None) -> None:
    if asked.models == "all":
        return
    offered = served if tier.models == "all" else tier.models
    if not asked.models or (offered is not None and not set(asked.models) <= set(offered)):
        raise InvalidRequest(
            f"The tier {asked.tier} offers {', '.join(sorted(offered or ())) or 'models by name'}.",
            param="models",
        )


def _refuse_beyond(quotas: Quotas, tier: Tier, name: str) -> None:
    if beyond := quotas.beyond(tier.ceiling):
        limit = getattr(tier.ceiling, beyond[0])
        raise InvalidRequest(
            f"A grant of the tier {name} has at most {limit:,} of this; ask for less, or for a higher tier.",
            param=f"quotas.{beyond[0]}",
        )


def _ends(asked: date | None, starts: datetime, tier: Tier) -> datetime:
    latest = starts + timedelta(days=tier.duration_days)
    if asked is None:
        return latest
    ends = _end_of(asked)
    if ends <= starts or asked > latest.date():
        raise InvalidRequest(f"A last day up to {latest.date()} can be asked for.", param="ends")
    return ends


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _end_of(day: date) -> datetime:
    """The first moment after a day."""
    try:
        return _start_of(day) + timedelta(days=1)
    except OverflowError:
        raise InvalidRequest("This day is too far away.", param="ends") from None


def _last_day(ends: datetime) -> date:
    return (ends - timedelta(microseconds=1)).date()
