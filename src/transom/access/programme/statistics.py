"""How applications went, tier by tier. Anybody may read it, and nobody's identity is in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from statistics import median

from sqlalchemy import Connection, func, select

from transom.access.programme.states import PENDING
from transom.schema.applications import State
from transom.schema.programme import Programme, ProgrammeStatistics, TierCounts
from transom.storage.tables import application_events, applications

_DAY = 86_400


def statistics(connection: Connection, programme: Programme) -> ProgrammeStatistics:
    """The counts of every tier that is or was offered; drafts that were never submitted are nobody's."""
    submitted = applications.c.submitted.is_not(None)
    grouped = (applications.c.tier, applications.c.state)
    query = select(*grouped, func.count()).where(submitted).group_by(*grouped)
    states: dict[str, Counter[State]] = defaultdict(Counter)
    for tier, state, count in connection.execute(query):
        states[tier][state] = count
    appeals = _appeals(connection)
    waits = _days_to_decide(connection)
    tiers = [*programme.tiers, *sorted(states.keys() - programme.tiers.keys())]
    return ProgrammeStatistics(
        tiers=[_counts(tier, states[tier], appeals.get(tier, 0), waits.get(tier, [])) for tier in tiers]
    )


def _counts(tier: str, states: Counter[State], appeals: int, days: list[float]) -> TierCounts:
    return TierCounts(
        tier=tier,
        asked=states.total(),
        granted=states["approved"],
        declined=states["declined"],
        pending=sum(states[state] for state in PENDING),
        closed=states["withdrawn"] + states["expired"],
        appeals=appeals,
        median_days_to_decide=f"{median(days):.2f}" if days else None,
    )


def _appeals(connection: Connection) -> Mapping[str, int]:
    query = select(applications.c.tier, func.count()).where(applications.c.kind == "appeal")
    return dict(connection.execute(query.group_by(applications.c.tier)).all())


def _days_to_decide(connection: Connection) -> Mapping[str, list[float]]:
    """Days from the first submission to the decision, without those in which nobody could decide."""
    # Neither database has a portable median, and the dates of all decisions are few.
    columns = (applications.c.id, applications.c.tier, applications.c.submitted, applications.c.decided)
    decided = select(*columns).where(applications.c.decided.is_not(None))
    pauses = _pauses(connection)
    found: dict[str, list[float]] = defaultdict(list)
    for row in connection.execute(decided):
        waited = sum(
            (min(end, row.decided) - max(start, row.submitted)).total_seconds()
            for start, end in pauses.get(row.id, [])
            if start < row.decided and end > row.submitted
        )
        found[row.tier].append(((row.decided - row.submitted).total_seconds() - waited) / _DAY)
    return found


def _pauses(connection: Connection) -> Mapping[str, list[tuple[datetime, datetime]]]:
    """From when to when each application was paused. Nothing is decided in a pause, so each has ended."""
    event = application_events.c
    query = select(event.application_id, event.action, event.at).where(event.action.in_(("pause", "resume")))
    found: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    since: dict[str, datetime] = {}
    for name, action, at in connection.execute(query.order_by(event.application_id, event.number)):
        if action == "pause":
            since[name] = at
        elif name in since:
            found[name].append((since.pop(name), at))
    return found
