"""How applications went, tier by tier. Anybody may read it, and nobody's identity is in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import median

from sqlalchemy import Connection, func, select

from transom.access.programme.states import PENDING
from transom.schema.applications import State
from transom.schema.programme import Programme, ProgrammeStatistics, TierCounts
from transom.storage.tables import applications

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
    # Neither database has a portable median, and the dates of all decisions are few.
    query = select(applications.c.tier, applications.c.submitted, applications.c.decided)
    found: dict[str, list[float]] = defaultdict(list)
    for tier, submitted, decided in connection.execute(query.where(applications.c.decided.is_not(None))):
        found[tier].append((decided - submitted).total_seconds() / _DAY)
    return found
