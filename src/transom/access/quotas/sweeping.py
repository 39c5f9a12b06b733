"""Sweeping: what is not needed goes back, who lives says so, who is dead is ended, the old is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from transom.access.quotas.gateways import Care, Found, care
from transom.access.quotas.leases import Book, Shelf
from transom.errors import StorageError
from transom.storage.database import Database

log = structlog.get_logger()

BEATS_IN_A_TTL = 6


class Sweeper:
    """Keeps leases short, and ends those of gateways that are silent.

    Whether a gateway is dead is judged by its beat: who sees the same beat for `ttl` of their own monotonic
    seconds ends it. No clock is compared with another machine's.

    Args:
        database: where leases are.
        shelf: this gateway's leases.
        now: the time, in microseconds since 1970.
        ticks: monotonic seconds.
        ttl: how many seconds a gateway may be silent.
    """

    def __init__(
        self,
        database: Database,
        shelf: Shelf,
        *,
        now: Callable[[], int],
        ticks: Callable[[], float],
        ttl: float,
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._now = now
        self._ticks = ticks
        self._ttl = ttl
        self._beaten = float("-inf")
        self._seen: dict[str, tuple[int, float]] = {}

    async def sweep(self) -> None:
        """One round; see `Quotas.sweep`."""
        self._doubt_forgotten()
        began = self._ticks()
        alive, ended = self._shelf.alive(), self._shelf.ended()
        returned = {book: surplus for book in alive if (surplus := book.surplus())}
        due = began - self._beaten >= self._ttl / BEATS_IN_A_TTL
        if not (due or returned or ended):
            return
        work = Care(
            beating=[book.id for book in alive],
            returned={book.id: surplus for book, surplus in returned.items()},
            dissolved=[book.id for book in ended],
            unmoved=self._unmoved(began),
            now_us=self._now(),
        )
        try:
            found = await self._care(work)
        except BaseException:
            _retire(returned)
            raise
        self._beaten = began
        self._shelf.drop(ended)
        self._note_own(alive, found.lost, began)
        self._note_others(found.beats, began)

    async def close(self) -> None:
        """Give everything back that this gateway holds."""
        self._doubt_forgotten()
        _retire([self._shelf.current])
        books = [*self._shelf.alive(), *self._shelf.ended()]
        await self._care(Care(dissolved=[book.id for book in books], now_us=self._now()))
        for book in books:
            book.lose()
        self._shelf.drop(books)

    async def _care(self, work: Care) -> Found:
        try:
            return await self._database.write(lambda connection: care(connection, work))
        except SQLAlchemyError as error:
            raise StorageError(f"Leases could not be given back: {error}") from error

    def _doubt_forgotten(self) -> None:
        if forgotten := self._shelf.doubt_forgotten():
            log.error("reservations were dropped unclosed", count=forgotten)

    def _unmoved(self, now: float) -> dict[str, int]:
        return {gateway: beat for gateway, (beat, since) in self._seen.items() if now - since >= self._ttl}

    def _note_own(self, alive: Sequence[Book], lost: Sequence[str], began: float) -> None:
        for book in alive:
            if book.id in lost:
                log.error("others took this gateway for dead", gateway=book.id)
                book.lose()
            else:
                book.extend(began + validity(self._ttl))

    def _note_others(self, beats: Mapping[str, int], began: float) -> None:
        own = {book.id for book in self._shelf.alive()}
        before = self._seen
        self._seen = {
            gateway: before[gateway] if gateway in before and before[gateway][0] == beat else (beat, began)
            for gateway, beat in beats.items()
            if gateway not in own
        }


def validity(ttl: float) -> float:
    """How long after a beat a gateway lends without asking: well before others may take it for dead."""
    return ttl / 2


def _retire(books: Iterable[Book]) -> None:
    for book in books:
        book.retired = True
