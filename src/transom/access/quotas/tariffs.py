"""Tariffs: whom requests are charged to and what they must keep to, worked out once for many of them.

A caller's requests of one second stand under the same limits, and those of one minute are counted in the same
windows. What follows from limits and windows alone is kept for as long as both stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from transom.access.quotas.accounts import Cell, Charged, Limit
from transom.access.quotas.budgets import Amounts, Resource
from transom.access.quotas.grants import Need

MOST_TARIFFS = 1024


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a request under some limits needs room in, in the windows of a moment."""

    charged: Charged
    limits: Sequence[Limit]
    accounts: tuple[str, ...]
    cells: tuple[tuple[Cell, Limit, Resource], ...]
    """Each with the smallest of its limits."""
    capped: frozenset[Resource]
    """Of which no more is charged than was reserved."""
    since: float
    until: float
    """Microseconds since 1970: the windows are those of every moment from `since` to just before `until`."""

    def needs(self, demand: Amounts) -> tuple[Need, ...]:
        """What a request needs that uses up to `demand`."""
        amounts = demand.by_resource()
        return tuple(
            [
                Need(cell, limit, amounts[resource])
                for cell, limit, resource in self.cells
                if amounts[resource]
            ]
        )


def tariff(charged: Charged, limits: Sequence[Limit], now_us: int) -> Tariff:
    """The tariff of a moment.

    Raises:
        ValueError: a limit is on an account that the request is not charged to.
    """
    accounts = charged.accounts()
    found: dict[Cell, Limit] = {}
    since, until = -inf, inf
    for limit in limits:
        if limit.account not in accounts:
            raise ValueError(f"a limit is on {limit.account}, and the request is not charged to it")
        cell = cell_of(limit, now_us)
        if cell not in found or limit.limit < found[cell].limit:
            found[cell] = limit
        end = limit.of.window_end(cell.window_start)
        if end is not None:
            since, until = max(since, cell.window_start), min(until, end)
    return Tariff(
        charged=charged,
        limits=limits,
        accounts=accounts,
        cells=tuple((cell, limit, limit.of.resource) for cell, limit in found.items()),
        capped=frozenset(limit.of.resource for limit in limits if limit.of.spends),
        since=since,
        until=until,
    )


class Tariffs:
    """Those that were used of late. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known: dict[int, Tariff] = {}

    def of(self, charged: Charged, limits: Sequence[Limit], now_us: int) -> Tariff:
        """`tariff`, from memory where the very same tuple of limits was asked for before."""
        known = self._known.get(id(limits))
        # A tariff keeps its limits alive, so that nothing else can have their identity.
        if (
            known is not None
            and known.limits is limits
            and known.charged == charged
            and known.since <= now_us < known.until
        ):
            return known
        made = tariff(charged, limits, now_us)
        if isinstance(limits, tuple):  # what can be changed is not remembered
            if len(self._known) >= MOST_TARIFFS:
                self._known.clear()
            self._known[id(limits)] = made
        return made


def cell_of(limit: Limit, now_us: int) -> Cell:
    """What a limit counts in at a moment."""
    return Cell(limit.account, limit.budget, limit.of.window_start(now_us))
