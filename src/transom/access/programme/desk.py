"""The programme in use: what is offered, the time, and the database that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection

from transom.access.programme.programme import adopt
from transom.schema.programme import Programme
from transom.storage.database import Database

T = TypeVar("T")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Occasion:
    """When something is done, and under which programme."""

    programme: Programme
    now: datetime
    served: Collection[str] | None = None
    """Names of the models that there are; None where nobody knows, as on the command line."""


Step = Callable[[Connection, Occasion], T]
"""One thing that somebody does: all of it in one transaction, or none."""


class Desk:
    """Where the programme is run.

    Args:
        database: where applications and grants are kept.
        programme: what is offered.
        served: names of the models that there are.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        database: Database,
        programme: Programme,
        *,
        served: Collection[str] | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.database = database
        self.programme = programme
        self._served = served
        self._clock = clock

    def occasion(self) -> Occasion:
        """Now."""
        return Occasion(self.programme, self._clock(), self._served)

    async def write(self, step: Step[T]) -> T:
        """Do something that changes what is kept."""
        occasion = self.occasion()
        return await self.database.write(lambda connection: step(connection, occasion))

    async def read(self, step: Step[T]) -> T:
        """Look something up."""
        occasion = self.occasion()
        return await self.database.read(lambda connection: step(connection, occasion))

    def write_sync(self, step: Step[T]) -> T:
        """`write`, for callers without an event loop; blocks."""
        occasion = self.occasion()
        return self.database.write_sync(lambda connection: step(connection, occasion))

    def read_sync(self, step: Step[T]) -> T:
        """`read`, for callers without an event loop; blocks."""
        occasion = self.occasion()
        return self.database.read_sync(lambda connection: step(connection, occasion))

    def open(self) -> bool:
        """Note in the trail which programme is in use; blocks.

        Returns:
            Whether it is another one than before.
        """
        return self.write_sync(lambda connection, occasion: adopt(connection, self.programme, occasion.now))
