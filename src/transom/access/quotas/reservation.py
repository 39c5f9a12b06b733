"""A reservation, and the three ways to close it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import structlog

from transom.access.quotas import ledger
from transom.access.quotas.budgets import NOTHING, Amounts
from transom.access.quotas.leases import Hold
from transom.access.quotas.ledger import Entry
from transom.access.quotas.settling import Booking, Settlement
from transom.errors import StorageError
from transom.storage.database import Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Desk:
    """What a reservation needs of the quotas that made it."""

    database: Database
    clock: Callable[[], datetime]
    forget: Callable[[Hold], None]
    """Takes the hold of a reservation that nobody closed."""


class Reservation:
    """What is held for one request.

    Close it in one of three ways: with a `settlement` in the transaction of its record, with `settle`, or
    with `release`. Used as an asynchronous context manager it is released at the end where it is still open.
    Its hold lives as long as its gateway; a reservation that is dropped unclosed gives its hold back.
    """

    def __init__(self, desk: Desk, booking: Booking, hold: Hold) -> None:
        self._desk = desk
        self._booking = booking
        self._hold = hold

    def __del__(self) -> None:
        if self._hold.open:
            self._desk.forget(self._hold)

    @property
    def request_id(self) -> str:
        """The request's own id: never one that somebody else's server made."""
        return self._booking.request_id

    @property
    def reserved(self) -> datetime:
        """When; decides in which windows it counts."""
        return self._booking.reserved

    @property
    def open(self) -> bool:
        """Whether nothing has closed it yet."""
        return self._hold.open

    def settlement(self, actual: Amounts) -> Settlement:
        """The write that charges what was used; see there."""
        return Settlement(self._booking, self._hold, actual, self._desk.clock)

    async def settle(self, actual: Amounts) -> None:
        """Charge what was used, in a transaction of its own. A caller that is cancelled changes nothing.

        Raises:
            StorageError: nobody knows whether it was charged; it may be tried again.
        """
        await asyncio.shield(asyncio.ensure_future(self._settle(actual)))

    async def release(self) -> None:
        """Charge nothing. Never raises for the store's sake: the hold does not stay, whatever happens."""
        if self._hold.open:
            await asyncio.shield(asyncio.ensure_future(self._release()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.release()

    async def _settle(self, actual: Amounts) -> None:
        with self.settlement(actual) as settlement:
            await self._desk.database.write(settlement)

    async def _release(self) -> None:
        entry = Entry(
            request_id=self._booking.request_id,
            charged=self._booking.tariff.charged,
            reserved=self._booking.reserved,
            closed=self._desk.clock(),
            outcome="released",
            amounts=NOTHING,
        )
        try:
            first = await self._desk.database.write(lambda connection: ledger.enter(connection, entry))
        except StorageError as error:
            log.warning("a release is not in the ledger", request=self.request_id, error=error.message)
            first = False
        if first:
            self._hold.release()
        else:
            self._hold.doubt()
