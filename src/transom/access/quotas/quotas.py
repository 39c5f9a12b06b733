"""Quotas: hold before work, charge after it, and never let through more than a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from transom.access.quotas import counters, ledger
from transom.access.quotas.accounts import Cell, Charged, Limit
from transom.access.quotas.asking import Asker
from transom.access.quotas.budgets import Amounts
from transom.access.quotas.counters import Count
from transom.access.quotas.leases import Hold, Shelf
from transom.access.quotas.ledger import DayUsage
from transom.access.quotas.reservation import Desk, Reservation
from transom.access.quotas.settling import Booking
from transom.access.quotas.standing import Standing, standing_of
from transom.access.quotas.sweeping import Sweeper, validity
from transom.access.quotas.tariffs import Tariffs, cell_of
from transom.errors import QuotaUnavailable, StorageError
from transom.storage.database import Database
from transom.storage.tables import microseconds

log = structlog.get_logger()
T = TypeVar("T")

TTL = timedelta(seconds=30)
SWEEP = timedelta(seconds=1)


class Quotas:
    """The quotas of one gateway process. Belongs to one event loop.

    SQL decides. What a gateway lends to requests without asking was held for it in SQL before, as a lease, so
    any number of gateways on one database let through what one would. A request is refused only after SQL
    was asked, with everything given back that this gateway holds unused. Other gateways give back what they
    do not need within two sweeps.

    Args:
        database: where ledger, counters and leases are.
        clock: the time, in UTC; decides windows.
        ticks: monotonic seconds; decide who is dead. They need not agree between machines.
        ttl: how long a gateway may be silent before what it holds is given back. Gateways on one database
            must have the same.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        ticks: Callable[[], float] = time.monotonic,
        ttl: timedelta = TTL,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ticks = ticks
        self._shelf = Shelf()
        self._tariffs = Tariffs()
        self._desk = Desk(database, clock, self._shelf.forgotten.append)
        seconds = ttl.total_seconds()
        self._asker = Asker(database, self._shelf, clock=clock, ticks=ticks, validity=validity(seconds))
        self._sweeper = Sweeper(database, self._shelf, now=self._now, ticks=ticks, ttl=seconds)

    async def reserve(
        self, request_id: str, charged: Charged, limits: Sequence[Limit], demand: Amounts
    ) -> Reservation:
        """Hold what a request may need, under all of its limits or none. Does not wait where leases cover it.

        Args:
            request_id: the request's own id, made here; the ledger has one row for it, ever.
            charged: whom it is charged to.
            limits: what it must keep to; of two for the same account and budget, the smaller counts. What
                follows from a tuple is remembered for the next request that brings the same one.
            demand: the most that it can use: prompt and `max_tokens`, a bound on engine time, and so on.

        Raises:
            QuotaExceeded: a limit does not allow it; nothing is held.
            QuotaUnavailable: nobody can say whether one does; nothing is held.
            ValueError: a limit is on an account that the request is not charged to.
        """
        now = self._clock()
        tariff = self._tariffs.of(charged, limits, microseconds(now))
        needs = tariff.needs(demand)
        book = self._shelf.current
        if needs and not book.take(needs, self._ticks()):
            book = await self._asker.ask(needs)
        booking = Booking(request_id, tariff, demand, now)
        return Reservation(self._desk, booking, Hold(book, needs))

    async def sweep(self) -> None:
        """Give back what is not needed, show that this gateway lives, and end those that are dead.

        Must be called at least four times in each `ttl`; `run` does.

        Raises:
            StorageError: nothing of it was done; the next sweep does it.
        """
        await self._sweeper.sweep()

    async def run(self, period: timedelta = SWEEP) -> None:
        """Sweep for ever; a store that fails is tried again."""
        while True:
            try:
                await self.sweep()
            except StorageError as error:
                log.warning("a sweep of quotas failed", error=error.message)
            except Exception as error:  # without sweeps nothing would be lent, nor given back, any more
                log.error("a sweep of quotas failed", exc_info=error)
            await asyncio.sleep(period.total_seconds())

    async def close(self) -> None:
        """Give everything back. What is still open then is charged as far as there is room.

        Raises:
            StorageError: it was not; other gateways give it back once this one has been silent for `ttl`.
        """
        await self._sweeper.close()

    async def standing(self, limits: Sequence[Limit]) -> list[Standing]:
        """Where each limit stands, from SQL; what this gateway holds unused counts as free.

        Raises:
            QuotaUnavailable: SQL cannot be reached.
        """
        now = self._now()
        cells = [cell_of(limit, now) for limit in limits]

        def read(connection: Connection) -> list[Count]:
            known = counters.look(connection, cells)
            return [known.get(cell) or counters.summed(connection, cell) for cell in cells]

        counts = await self._read(read)
        return [
            standing_of(limit, Count(count.used, max(0, count.held - self._unused(cell))), now)
            for limit, cell, count in zip(limits, cells, counts, strict=True)
        ]

    def standing_now(self, charged: Charged, limits: Sequence[Limit]) -> list[Standing]:
        """Where each limit of whoever is charged stands, from memory and without waiting.

        Limits of which this gateway holds nothing now are left out. What other gateways did since SQL was
        asked last is not in it.
        """
        now = self._now()
        leases = self._shelf.current.leases
        return [
            standing_of(limit, Count(lease.used, lease.others + lease.out), now)
            for cell, limit, _ in self._tariffs.of(charged, limits, now).cells
            if (lease := leases.get(cell)) is not None
        ]

    async def usage(
        self,
        since: datetime,
        until: datetime,
        *,
        project_id: str | None = None,
        key_id: str | None = None,
        person_id: str | None = None,
    ) -> list[DayUsage]:
        """What one project, key or person used, by day of UTC, from the ledger.

        Raises:
            QuotaUnavailable: SQL cannot be reached.
            ValueError: not exactly one of the three is named.
        """
        accounts = Charged(project_id=project_id, key_id=key_id, person_id=person_id).accounts()
        if len(accounts) != 1:
            raise ValueError("usage is that of one project, one key or one person")
        return await self._read(lambda connection: ledger.usage(connection, accounts[0], since, until))

    def _now(self) -> int:
        return microseconds(self._clock())

    def _unused(self, cell: Cell) -> int:
        lease = self._shelf.current.leases.get(cell)
        return 0 if lease is None else lease.free

    async def _read(self, fn: Callable[[Connection], T]) -> T:
        try:
            return await self._database.read(fn)
        except (SQLAlchemyError, RuntimeError) as error:
            raise QuotaUnavailable("The ledger of quotas cannot be read now.") from error
