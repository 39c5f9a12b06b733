"""What quotas must decide, said as simply as can be: one gateway, one thing after another, dictionaries."""

from __future__ import annotations

from collections import defaultdict

from tests.quotas.gateway import EVERYBODY, NOON
from transom.access.quotas import Limit
from transom.access.quotas.budgets import SPENDING
from transom.storage.tables import microseconds


class Oracle:
    """Used and held of each (account, budget, window), and who holds what."""

    def __init__(self):
        self.now = NOON
        self.used = defaultdict(int)
        self.held = defaultdict(int)
        self._open = {}

    def cell(self, limit, now):
        return limit.account, limit.budget, limit.of.window_start(microseconds(now))

    def reserve(self, name, limits, demand):
        """Whether the request passes."""
        needs = {self.cell(limit, self.now): (limit, demand.of(limit.of.resource)) for limit in limits}
        needs = {cell: need for cell, need in needs.items() if need[1]}
        if any(
            self.used[cell] + self.held[cell] + amount > limit.most for cell, (limit, amount) in needs.items()
        ):
            return False
        for cell, (_, amount) in needs.items():
            self.held[cell] += amount
        self._open[name] = needs, limits, demand, self.now
        return True

    def settle(self, name, actual):
        limits, demand, reserved = self._open[name][1:]
        self.release(name)
        limited = {limit.of.resource for limit in limits if limit.of.spends}
        for account in EVERYBODY.accounts():
            for budget in SPENDING:
                cap = demand if budget.resource in limited else actual
                charge = min(actual.of(budget.resource), cap.of(budget.resource))
                self.used[self.cell(Limit(account, budget.name, 0), reserved)] += charge

    def release(self, name):
        needs, *_ = self._open.pop(name)
        for cell, (_, amount) in needs.items():
            self.held[cell] -= amount
