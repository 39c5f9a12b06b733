"""A reservation, and its one settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection

from transom.access.quotas import counters, ledger
from transom.access.quotas.accounts import Charged, Limit
from transom.access.quotas.budgets import NOTHING, RESOURCES, Amounts, Resource, microseconds
from transom.access.quotas.grants import Need
from transom.access.quotas.leases import Hold
from transom.access.quotas.ledger import Entry
from transom.access.quotas.posting import Posting
from transom.errors import StorageError
from transom.storage.database import Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What was reserved, for whom, and when."""

    request_id: str
    charged: Charged
    limits: Sequence[Limit]
    demand: Amounts
    reserved: datetime


@dataclass(frozen=True, slots=True)
class Desk:
    """What a reservation needs of the quotas that made it."""

    database: Database
    clock: Callable[[], datetime]
    forget: Callable[[Hold], None]
    """Takes the hold of a reservation that nobody closed."""


class Settlement:
    """One write, for the transaction in which a request's record is made; and what follows in memory.

        with reservation.settlement(actual) as settlement:
            await database.write(lambda connection: (append(connection), settlement(connection)))

    Call it with the connection, inside the write, and leave the `with` once the write has returned or raised.
    However often it is called, and whatever other settlement of the request was: one of them counts, the
    first that commits. After an error SQL is asked what is true, and the hold does not stay.
    """

    def __init__(self, booking: Booking, hold: Hold, actual: Amounts, clock: Callable[[], datetime]) -> None:
        self._booking = booking
        self._hold = hold
        self._actual = actual
        self._clock = clock
        self._counted: Amounts | None = None
        self._unheld = False

    @property
    def charge(self) -> Amounts:
        """What is charged: what was used, and of a limited resource no more than was reserved."""
        capped: dict[str, int] = {
            resource: min(self._actual.of(resource), self._booking.demand.of(resource))
            for resource in self._limited()
        }
        return replace(self._actual, **capped)

    def __call__(self, connection: Connection) -> None:
        """Enter it in the ledger and the counters; nothing where the request has its row already."""
        self._counted = None
        charge, booking = self.charge, self._booking
        if not ledger.enter(connection, self._entry(charge)):
            return
        posting = self._posting(charge, self._hold.needs)
        if not posting.take_from_leases(connection, self._hold.book.id):
            charge = self._late(connection)
            posting = self._posting(charge, ())
            ledger.correct(connection, booking.request_id, "expired", charge, short=charge != self._actual)
        self._unheld = posting.count(connection)
        self._counted = charge

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None or self._counted is None:
            self._hold.doubt()
            return
        if self._counted != self._actual:
            log.warning("less was charged than was used", request=self._booking.request_id)
        self._hold.settle(self._counted)
        if self._unheld:
            self._hold.book.ask_again(self._booking.charged.accounts())

    def _limited(self) -> set[Resource]:
        return {limit.of.resource for limit in self._booking.limits if limit.of.spends}

    def _entry(self, charge: Amounts) -> Entry:
        return Entry(
            request_id=self._booking.request_id,
            charged=self._booking.charged,
            reserved=self._booking.reserved,
            closed=self._clock(),
            outcome="settled",
            amounts=charge,
            short=charge != self._actual,
        )

    def _posting(self, charge: Amounts, needs: Sequence[Need]) -> Posting:
        booking = self._booking
        cells = [need.cell for need in needs]
        return Posting(booking.charged.accounts(), microseconds(booking.reserved), charge, cells)

    def _late(self, connection: Connection) -> Amounts:
        """What can still be charged after the hold has run out: what there is room for."""
        # The row must not be counted while the counters are looked at, for one of them may have to be made.
        ledger.correct(connection, self._booking.request_id, "expired", NOTHING, short=True)
        spent = [need for need in self._hold.needs if need.limit.of.spends]
        counts = counters.ensure(connection, [need.cell for need in spent])
        room = {resource: self._actual.of(resource) for resource in RESOURCES}
        room.update({resource: self.charge.of(resource) for resource in self._limited()})
        for need in spent:
            left = max(0, need.limit.most - sum(counts[need.cell]))
            resource = need.limit.of.resource
            room[resource] = min(room[resource], left)
        return replace(self._actual, **{str(resource): amount for resource, amount in room.items()})


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
            charged=self._booking.charged,
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
