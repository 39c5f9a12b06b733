"""What was used, and what is left."""

from __future__ import annotations

from datetime import timedelta

from transom.access.keys.callers import Caller
from transom.access.quotas import VECTOR, DayUsage, Limit, Standing
from transom.errors import Forbidden
from transom.schema.usage import DayView, LimitView, UsageView
from transom.services.house import House


async def usage(house: House, caller: Caller, days: int) -> UsageView:
    """The usage of a key's project in the last days, and where the limits of the key stand.

    Raises:
        Forbidden: no key was sent.
        QuotaUnavailable: the ledger cannot be read.
    """
    if caller.anonymous:
        raise Forbidden("Usage is told to the owner of a key; send one.")
    entitlement = await house.entitlements.of(caller)
    limits: dict[tuple[str, str], Limit] = {}
    for name, backend in house.backends.items():
        for limit in entitlement.limits(name, backend.hidden_size):
            limits.setdefault((limit.account, limit.budget), limit)
    standings = await house.quotas.standing(list(limits.values()))
    until = house.now()
    used = await house.quotas.usage(until - timedelta(days=days), until, project_id=caller.project_id)
    return UsageView(
        project=caller.project_id,
        grant=None if entitlement.grant is None else entitlement.grant.id,
        scopes=sorted(entitlement.scopes),
        limits=[_limit(standing) for standing in standings],
        days=[_day(each) for each in used],
    )


def _limit(standing: Standing) -> LimitView:
    return LimitView(
        account=standing.limit.account,
        budget=standing.limit.budget,
        limit=standing.limit.limit,
        used=standing.used,
        held=standing.held,
        remaining=standing.remaining,
        reset_seconds=standing.reset,
    )


def _day(usage: DayUsage) -> DayView:
    return DayView(
        day=usage.day.isoformat(),
        requests=usage.requests,
        tokens=usage.tokens,
        engine_seconds=usage.engine_us / 1e6,
        internals_bytes=usage.internals_bytes,
        released_rank=usage.released_rank / VECTOR,
    )
