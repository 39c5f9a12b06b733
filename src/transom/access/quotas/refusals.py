"""Refusals: which limit, how full it is, and how long to wait, or that waiting does not help."""

from __future__ import annotations

from collections.abc import Sequence

from transom.access.quotas.accounts import Limit, kind_of
from transom.access.quotas.budgets import MINUTE_US, SECOND_US
from transom.access.quotas.grants import Shortage
from transom.errors import QuotaExceeded

IN_FLIGHT_SECONDS = 1
"""What to wait for a request in flight to end: nobody knows when one does."""
HELD_SECONDS = 10
"""What to wait where only holds are in the way, which end with their requests, and the window is long."""

_SUBJECTS = {
    "key": "Your key",
    "person": "You",
    "project": "Your project",
    "grant": "Your project's grant",
    "person_model": "You",
    "project_model": "Your project",
    "tier": "The pool of the tier",
    "model": "The pool of the model",
}


def refusal(shortages: Sequence[Shortage], now_us: int) -> QuotaExceeded:
    """The error for a request, from everything that stands against it.

    The limit that takes longest decides; one for which waiting does not help, before all others.
    """
    waits = [(wait_for(shortage, now_us), shortage) for shortage in shortages]
    hopeless = [shortage for wait, shortage in waits if wait is None]
    if hopeless:
        return QuotaExceeded(f"{_standing(hopeless[0])} {_remedy(hopeless[0])}", code="insufficient_quota")
    longest, worst = max(((wait or 0, shortage) for wait, shortage in waits), key=lambda pair: pair[0])
    return QuotaExceeded(f"{_standing(worst)} Try again in {longest} s.", retry_after=longest)


def wait_for(shortage: Shortage, now_us: int) -> int | None:
    """Whole seconds until the request would pass if nobody else asked; None where it never would."""
    need, count = shortage.need, shortage.count
    if need.amount > need.limit.most:
        return None
    budget = need.limit.of
    if not budget.spends:
        return IN_FLIGHT_SECONDS
    only_holds = count.used + need.amount <= need.limit.most
    end = budget.window_end(need.cell.window_start)
    if end is None:
        return HELD_SECONDS if only_holds else None
    to_end = max(1, -((now_us - end) // SECOND_US))
    long = budget.period_us is not None and budget.period_us > MINUTE_US
    return min(to_end, HELD_SECONDS) if only_holds and long else to_end


def _standing(shortage: Shortage) -> str:
    need, count = shortage.need, shortage.count
    limit, scale = need.limit, need.limit.of.scale
    used, held = -(-count.used // scale), -(-count.held // scale)
    return (
        f"{subject(limit)} reached {limit.budget}: the limit is {limit.limit} {limit.of.unit}, {used} used, "
        f"{held} held for requests that are running; this one needs up to {-(-need.amount // scale)}."
    )


def _remedy(shortage: Shortage) -> str:
    need = shortage.need
    if need.amount > need.limit.most:
        return "This request alone is larger than the limit: ask for less at once, or apply for more."
    if kind_of(need.limit.account) in ("tier", "model"):
        return "The pool is used up, and waiting does not refill it: ask the operator."
    return "Waiting does not help: apply for a supplement to the grant."


def subject(limit: Limit) -> str:
    """Who has the limit, as the first words of a sentence."""
    kind, _, name = limit.account.partition(":")
    words = _SUBJECTS[kind]
    if kind in ("tier", "model"):
        return f"{words} {name}"
    if kind.endswith("_model"):
        return f"{words}, with the model {name.partition(':')[2]},"
    return words
