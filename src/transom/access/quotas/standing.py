"""Where an account stands under its limits."""

from __future__ import annotations

from typing import NamedTuple

from transom.access.quotas.accounts import Limit
from transom.access.quotas.budgets import SECOND_US
from transom.access.quotas.counters import Count


class Standing(NamedTuple):
    """A limit and what is left of it, in the budget's unit, whole: rounded so that it never promises more."""

    limit: Limit
    used: int
    held: int
    """For requests that are running, here or at other gateways, and in their leases."""
    remaining: int
    reset: int | None
    """Seconds until the window ends, rounded up; None where the budget has no windows."""


def standing_of(limit: Limit, count: Count, now_us: int) -> Standing:
    """How a counter stands to a limit. After a limit was lowered nothing remains, and not less."""
    budget = limit.of
    end = budget.window_end(budget.window_start(now_us))
    return Standing(
        limit=limit,
        used=-(-count.used // budget.scale),
        held=-(-count.held // budget.scale),
        remaining=max(0, limit.most - count.used - count.held) // budget.scale,
        reset=None if end is None else -((now_us - end) // SECOND_US),
    )
