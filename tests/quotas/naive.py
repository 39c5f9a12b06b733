"""Quotas as they are often written: read, decide, then write.

Kept to show that the tests of the eight properties can fail. Each flaw here has been somebody's incident:
counters that are read and written back, a ledger under ids that are not the request's own, charges beyond
what was reserved, accounts charged one after another, holds that nobody ends, a request counted in the
window in which it happens to end, and a store that fails open.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from sqlalchemy import insert, select, update

from transom.access.quotas import Amounts
from transom.errors import QuotaExceeded, StorageError
from transom.storage.tables import microseconds, quota_counters, quota_ledger

BOUNDLESS = 10**15
"""So that the table's own check does not save it."""


@dataclass
class NaiveReservation:
    quotas: NaiveQuotas
    request_id: str
    charged: object
    limits: list
    demand: Amounts
    held: list = field(default_factory=list)

    async def settle(self, actual):
        for limit, amount in self.held:
            used = actual.of(limit.of.resource) if limit.of.spends else 0
            await self.quotas.change(limit, used, -amount)
        await self.quotas.enter(self, actual)

    async def release(self):
        for limit, amount in self.held:
            await self.quotas.change(limit, 0, -amount)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        return None


class NaiveQuotas:
    """The same questions as `Quotas` answers."""

    def __init__(self, database, *, clock, **_options):
        self._database = database
        self._clock = clock

    async def reserve(self, request_id, charged, limits, demand):
        reservation = NaiveReservation(self, request_id, charged, limits, demand)
        for limit in limits:
            amount = demand.of(limit.of.resource)
            try:
                used, held = await self._database.read(lambda c, limit=limit: self._count(c, limit)[1:])
            except Exception:  # noqa: BLE001 - better to answer than to be strict
                continue
            if used + held + amount > limit.most:
                raise QuotaExceeded(f"{limit.budget} is used up.", retry_after=1)
            try:
                await self.change(limit, 0, amount)
            except StorageError:
                continue
            reservation.held.append((limit, amount))
        return reservation

    async def change(self, limit, used, held):
        row, old_used, old_held = await self._database.read(lambda c: self._count(c, limit))
        values = {"used": old_used + used, "held": max(0, old_held + held)}
        await self._database.write(lambda c: self._write(c, row, values))

    async def enter(self, reservation, actual):
        row = {
            "request_id": f"chatcmpl-{uuid.uuid4()}",
            **reservation.charged.columns(),
            "reserved": self._clock(),
            "closed": self._clock(),
            "outcome": "settled",
            "short": False,
            **actual.by_resource(),
        }
        await self._database.write(lambda c: c.execute(insert(quota_ledger), row) and None)

    async def sweep(self):
        return None

    async def close(self):
        return None

    async def run(self, *_args):
        return None

    def _count(self, connection, limit):
        now = microseconds(self._clock())
        cell = {"account": limit.account, "budget": limit.budget, "window_start": limit.of.window_start(now)}
        query = select(quota_counters.c.used, quota_counters.c.held).filter_by(**cell)
        return (cell, *(connection.execute(query).one_or_none() or (0, 0)))

    @staticmethod
    def _write(connection, cell, values):
        done = connection.execute(update(quota_counters).filter_by(**cell).values(values))
        if done.rowcount == 0:
            connection.execute(insert(quota_counters), {**cell, **values, "ceiling": BOUNDLESS})
