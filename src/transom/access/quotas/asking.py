"""Asking SQL, for requests that no lease covers: one question at a time, for everybody who waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from transom.access.quotas.grants import Ask, Fenced, Granted, Need, grant
from transom.access.quotas.leases import Book, Hold, Shelf
from transom.access.quotas.refusals import refusal
from transom.errors import QuotaUnavailable, StorageError
from transom.storage.database import Database
from transom.storage.tables import microseconds

log = structlog.get_logger()

LARGEST_ASK = 256
"""Most requests that are decided in one write, for all other writers wait for it."""
PATIENCE = 10.0
"""Seconds to wait for SQL's answer."""


@dataclass(eq=False, slots=True)
class _Waiter:
    needs: Sequence[Need]
    answer: asyncio.Future[Book]


class Asker:
    """The way to SQL.

    Args:
        database: where to ask.
        shelf: the leases that answers go to.
        clock: the time, in UTC.
        ticks: monotonic seconds.
        validity: how many seconds after a question this gateway is surely not taken for dead.
    """

    def __init__(
        self,
        database: Database,
        shelf: Shelf,
        *,
        clock: Callable[[], datetime],
        ticks: Callable[[], float],
        validity: float,
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._clock = clock
        self._ticks = ticks
        self._validity = validity
        self._waiting: deque[_Waiter] = deque()
        self._answering: asyncio.Task[None] | None = None

    async def ask(self, needs: Sequence[Need]) -> Book:
        """The book in which SQL holds what a request needs.

        What an answer leaves over is lent to those who came meanwhile, before anybody among them asks.

        Raises:
            QuotaExceeded: SQL said no.
            QuotaUnavailable: SQL said nothing.
        """
        waiter = _Waiter(needs, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            _give_back(waiter)
            raise

    async def _answer(self) -> None:
        while self._waiting:
            count = min(LARGEST_ASK, len(self._waiting))
            waiters = [self._waiting.popleft() for _ in range(count)]
            batch = [waiter for waiter in waiters if not (waiter.answer.done() or self._lend(waiter))]
            if not batch:
                continue
            try:
                await self._decide(batch)
            except (StorageError, TimeoutError) as error:
                log.warning("quotas could not be decided", error=str(error) or "no answer in time")
                _fail(batch)
            except Exception as error:  # whoever waits must not wait for ever
                log.error("quotas could not be decided", exc_info=error)
                _fail(batch)

    def _lend(self, waiter: _Waiter) -> bool:
        book = self._shelf.current
        taken = book.take(waiter.needs, self._ticks())
        if taken:
            waiter.answer.set_result(book)
        return taken

    async def _decide(self, batch: Sequence[_Waiter]) -> None:
        book, began = self._shelf.current, self._ticks()
        ask = self._question(book, batch)
        book.asking = True
        try:
            async with asyncio.timeout(PATIENCE):
                granted = await self._database.write(lambda connection: grant(connection, ask))
        except Fenced:
            log.error("others took this gateway for dead", gateway=book.id)
            book.lose()
            self._waiting.extendleft(reversed(batch))
            return
        except BaseException:
            book.retired = True
            raise
        finally:
            book.asking = False
        book.extend(began + self._validity)
        self._deliver(book, batch, granted)

    def _question(self, book: Book, batch: Sequence[_Waiter]) -> Ask:
        cells = {need.cell for waiter in batch for need in waiter.needs}
        return Ask(
            gateway=book.id,
            register=None if book.registered else self._clock(),
            needs=[waiter.needs for waiter in batch],
            returned=book.withdraw(cells),
            appetite={cell: book.appetite(cell) for cell in cells},
        )

    def _deliver(self, book: Book, batch: Sequence[_Waiter], granted: Granted) -> None:
        decided = list(zip(batch, granted.verdicts, strict=True))
        book.record(granted.shares, [waiter.needs for waiter, shortages in decided if not shortages])
        now = microseconds(self._clock())
        for waiter, shortages in decided:
            if waiter.answer.done():  # whoever asked has left
                if not shortages:
                    Hold(book, waiter.needs).release()
            elif shortages:
                waiter.answer.set_exception(refusal(shortages, now))
            else:
                waiter.answer.set_result(book)


def _give_back(waiter: _Waiter) -> None:
    """Release what was held for somebody who left before they heard of it."""
    answer = waiter.answer
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        Hold(answer.result(), waiter.needs).release()


def _fail(batch: Sequence[_Waiter]) -> None:
    for waiter in batch:
        if not waiter.answer.done():
            waiter.answer.set_exception(
                QuotaUnavailable("The counters of quotas cannot be reached; nothing was charged. Try again.")
            )
