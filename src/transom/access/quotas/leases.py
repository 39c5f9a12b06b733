"""Leases, as a gateway's memory knows them. Nothing here waits, and nothing here is more than SQL granted."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from transom.access.credentials.keys import base62
from transom.access.quotas.accounts import Cell
from transom.access.quotas.budgets import NOTHING, Amounts
from transom.access.quotas.grants import Need, Share

FIRST_APPETITE = 8
LARGEST_APPETITE = 1024


@dataclass(slots=True)
class Lease:
    """What a gateway holds of one cell."""

    limit: int | None = None
    """The limit under which it was granted; under another one SQL is asked. None: it is asked in any case."""
    free: int = 0
    out: int = 0
    """Held for requests that are open."""
    taken: int = 0
    """Taken for requests since the last sweep."""
    appetite: int = FIRST_APPETITE
    used: int = 0
    """What was used when SQL was asked last, and what this gateway settled since."""
    others: int = 0
    """What other gateways held then."""


class Book:
    """The leases of one gateway id.

    A book from which something went that may or may not have arrived in SQL is *retired*: nothing is lent
    from it any more, so that it cannot matter which of the two is true. Once the requests that stand on it
    have ended, SQL gives back whatever it says is held.
    """

    def __init__(self) -> None:
        self.id = base62(secrets.randbits(128), 22)
        self.registered = False
        """Whether SQL knows it."""
        self.retired = False
        self.open = 0
        """Requests that stand on it."""
        self.asking = False
        """Whether a question to SQL is on its way."""
        self.valid_until = float("-inf")
        """Monotonic seconds: until then nobody can have taken this gateway for dead."""
        self.leases: dict[Cell, Lease] = {}

    def take(self, needs: Sequence[Need], now: float) -> bool:
        """Take what a request needs, all or nothing."""
        if self.retired or now >= self.valid_until:
            return False
        found = []
        for need in needs:
            lease = self.leases.get(need.cell)
            if lease is None or lease.free < need.amount or lease.limit != need.limit.most:
                return False
            found.append((lease, need.amount))
        for lease, amount in found:
            lease.free -= amount
            lease.out += amount
            lease.taken += amount
        self.open += 1
        return True

    def appetite(self, cell: Cell) -> int:
        """How many times a request's need to ask for beyond it; twice as many if a lease ran out at once."""
        lease = self.leases.get(cell)
        if lease is None:
            return FIRST_APPETITE
        if lease.taken:
            lease.appetite = min(2 * lease.appetite, LARGEST_APPETITE)
        return lease.appetite

    def withdraw(self, cells: Iterable[Cell]) -> dict[Cell, int]:
        """Take all that is free in these cells, to give it back."""
        returned = {}
        for cell in cells:
            lease = self.leases.get(cell)
            if lease is not None and lease.free:
                returned[cell], lease.free = lease.free, 0
        return returned

    def deposit(self, returned: Mapping[Cell, int]) -> None:
        """Undo `withdraw`."""
        for cell, amount in returned.items():
            self.leases.setdefault(cell, Lease()).free += amount

    def record(self, shares: Mapping[Cell, Share], admitted: Sequence[Sequence[Need]]) -> None:
        """Note what SQL granted."""
        for needs in admitted:
            self.open += 1
            for need in needs:
                lease = self.leases.setdefault(need.cell, Lease())
                lease.out += need.amount
                lease.taken += need.amount
        for cell, share in shares.items():
            self._note(self.leases.setdefault(cell, Lease()), share)

    def ask_again(self, accounts: Collection[str]) -> None:
        """Ask SQL before anything more is lent to these accounts: something counts that no lease covered."""
        for cell, lease in self.leases.items():
            if cell.account in accounts:
                lease.limit = None

    def surplus(self) -> dict[Cell, int]:
        """Take what is not needed at the pace of the time since the last call; forget what is empty.

        As much as was taken in that time stays, so an idle lease goes back whole.
        """
        returned = {}
        for cell, lease in list(self.leases.items()):
            surplus = max(0, lease.free - lease.taken)
            if surplus:
                returned[cell] = surplus
                lease.free -= surplus
            if not lease.taken:
                lease.appetite = FIRST_APPETITE
            if not (lease.taken or lease.free or lease.out):
                del self.leases[cell]
            lease.taken = 0
        return returned

    def extend(self, until: float) -> None:
        """SQL saw it alive: it is registered, and may be lent from until then."""
        self.registered = True
        self.valid_until = max(self.valid_until, until)

    def lose(self) -> None:
        """Others took it for dead: SQL has given back everything that it held."""
        self.registered = False
        self.retired = True

    @staticmethod
    def _note(lease: Lease, share: Share) -> None:
        lease.free += share.spare
        lease.used = share.count.used
        lease.others = share.count.held - lease.free - lease.out
        if share.limit is not None:
            lease.limit = share.limit


@dataclass(eq=False, slots=True)
class Hold:
    """What is held for one request, until it is closed, once."""

    book: Book
    needs: Sequence[Need]
    open: bool = True

    def settle(self, charged: Amounts) -> None:
        """Part of it was used; the rest can be lent again."""
        for need, lease in self._close():
            used = charged.of(need.limit.of.resource) if need.limit.of.spends else 0
            lease.free += need.amount - used
            lease.used += used

    def release(self) -> None:
        """None of it was used."""
        self.settle(NOTHING)

    def doubt(self) -> None:
        """Nobody but SQL knows how much was used: lend nothing from this book any more."""
        if self.open:
            self._close()
            self.book.retired = True

    def _close(self) -> list[tuple[Need, Lease]]:
        """What it held, the first time; nothing later."""
        if not self.open:
            return []
        self.open = False
        self.book.open -= bool(self.needs)
        closed = [(need, self.book.leases[need.cell]) for need in self.needs]
        for need, lease in closed:
            lease.out -= need.amount
        return closed


@dataclass(slots=True)
class Shelf:
    """The book that is lent from, and those that are retired and not yet closed."""

    _current: Book = field(default_factory=Book)
    _retired: list[Book] = field(default_factory=list)
    forgotten: deque[Hold] = field(default_factory=deque)
    """Holds of reservations that nobody closed. Filled by the garbage collector, from any thread."""

    @property
    def current(self) -> Book:
        """The book to lend from; a new one where the last was retired."""
        if self._current.retired:
            self._retired.append(self._current)
            self._current = Book()
        return self._current

    def alive(self) -> list[Book]:
        """Every book whose leases must not expire."""
        ended = self.ended()
        return [book for book in (self.current, *self._retired) if book.registered and book not in ended]

    def ended(self) -> list[Book]:
        """Retired books on which nothing stands any more."""
        return [book for book in self._retired if not (book.open or book.asking)]

    def drop(self, books: Iterable[Book]) -> None:
        """Forget books that SQL has closed."""
        dropped = set(books)
        self._retired = [book for book in self._retired if book not in dropped]

    def doubt_forgotten(self) -> int:
        """Close the holds that nobody did; how many there were."""
        count = 0
        while self.forgotten:
            self.forgotten.popleft().doubt()
            count += 1
        return count
