"""Settling: what requests used is charged, once, in the transaction of their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

import structlog
from sqlalchemy import Connection

from transom.access.quotas import counters, ledger
from transom.access.quotas.budgets import NOTHING, RESOURCES, Amounts
from transom.access.quotas.leases import Hold
from transom.access.quotas.ledger import Entry
from transom.access.quotas.posting import Key, Posting
from transom.access.quotas.tariffs import Tariff
from transom.errors import StorageError
from transom.storage.tables import microseconds

log = structlog.get_logger()


class Booking(NamedTuple):
    """What was reserved, for whom, and when."""

    request_id: str
    tariff: Tariff
    demand: Amounts
    reserved: datetime


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
        actual, demand = self._actual.by_resource(), self._booking.demand.by_resource()
        over = {name: demand[name] for name in self._booking.tariff.capped if actual[name] > demand[name]}
        return replace(self._actual, **over) if over else self._actual

    def __call__(self, connection: Connection) -> None:
        """Enter it in the ledger and the counters; nothing where the request has its row already."""
        self._counted = None
        charge, booking = self.charge, self._booking
        if not ledger.enter(connection, self.entry(charge)):
            return
        posting = self.posting(charge)
        if not posting.take_from_leases(connection, self.gateway):
            charge = self._late(connection)
            posting = self.posting(charge, held=False)
            ledger.correct(connection, booking.request_id, "expired", charge, short=charge != self._actual)
        self.note(charge, unheld=posting.count(connection))

    @staticmethod
    def together(connection: Connection, settlements: Sequence[Settlement]) -> None:
        """Call each; many that charge the same cells cost little more than one.

        Raises:
            StorageError: one of several is out of the ordinary. What was written until then must be undone,
                and each be called by itself.
        """
        if len(settlements) == 1:
            settlements[0](connection)
            return
        charges = [settlement.charge for settlement in settlements]
        _enter(connection, settlements, charges)
        for (book, _), (posting, same) in _grouped(settlements, charges).items():
            if not posting.take_from_leases(connection, book):
                raise StorageError("Of requests that are settled together, some were held for too long.")
            unheld = posting.count(connection)
            for settlement, charge in same:
                settlement.note(charge, unheld=unheld)

    @property
    def gateway(self) -> str:
        """The id under which SQL holds it."""
        return self._hold.book.id

    def note(self, charge: Amounts, *, unheld: bool) -> None:
        """It is counted, if what was written is committed.

        Args:
            charge: how much.
            unheld: whether something counts it for which nothing was held.
        """
        self._counted, self._unheld = charge, unheld

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
            self._hold.book.ask_again(self._booking.tariff.accounts)

    def entry(self, charge: Amounts) -> Entry:
        """The row of the ledger that charges it."""
        return Entry(
            request_id=self._booking.request_id,
            charged=self._booking.tariff.charged,
            reserved=self._booking.reserved,
            closed=self._clock(),
            outcome="settled",
            amounts=charge,
            short=charge != self._actual,
        )

    def posting(self, charge: Amounts, *, held: bool = True) -> Posting:
        """What charging it changes, where it is `held` for the request and where it is not."""
        booking, needs = self._booking, self._hold.needs if held else ()
        cells = [need.cell for need in needs]
        return Posting(booking.tariff.accounts, microseconds(booking.reserved), charge, cells)

    def _late(self, connection: Connection) -> Amounts:
        """What can still be charged after the hold has run out: what there is room for."""
        # The row must not be counted while the counters are looked at, for one of them may have to be made.
        ledger.correct(connection, self._booking.request_id, "expired", NOTHING, short=True)
        spent = [need for need in self._hold.needs if need.limit.of.spends]
        counts = counters.ensure(connection, [need.cell for need in spent])
        room = {resource: self._actual.of(resource) for resource in RESOURCES}
        room.update({resource: self.charge.of(resource) for resource in self._booking.tariff.capped})
        for need in spent:
            left = max(0, need.limit.most - sum(counts[need.cell]))
            resource = need.limit.of.resource
            room[resource] = min(room[resource], left)
        return replace(self._actual, **{str(resource): amount for resource, amount in room.items()})


_Group: TypeAlias = "tuple[Posting, list[tuple[Settlement, Amounts]]]"


def _enter(connection: Connection, settlements: Sequence[Settlement], charges: Sequence[Amounts]) -> None:
    entries = [each.entry(charge) for each, charge in zip(settlements, charges, strict=True)]
    if ledger.enter_all(connection, entries) != len(entries):
        raise StorageError("Of requests that are settled together, some were settled before.")


def _grouped(settlements: Sequence[Settlement], charges: Sequence[Amounts]) -> dict[tuple[str, Key], _Group]:
    """Settlements that charge what one gateway holds of the same cells, with the sum of their charges."""
    groups: dict[tuple[str, Key], _Group] = {}
    for settlement, charge in zip(settlements, charges, strict=True):
        posting = settlement.posting(charge)
        first, same = groups.setdefault((settlement.gateway, posting.key), (posting, []))
        if first is not posting:
            first.add(posting)
        same.append((settlement, charge))
    return groups
