"""How often one address may ask to sign in: the generic cell rate algorithm (ITU-T I.371), in SQL.

Each subject has one number, the moment until which it is busy. A step moves it on by `every`, from now if it
lies behind; a step is allowed while it lies no further ahead than a burst does. Nothing is reset, ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy import Connection, delete, func, insert, select, update

from transom.access.credentials.peppers import PepperSource
from transom.errors import QuotaExceeded
from transom.storage.tables import sign_in_paces as paces

_SECOND = timedelta(seconds=1)

MOST_SUBJECTS = 50_000
"""Rows that are kept. Beyond them the tenth that would be free again first is forgotten."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`burst` at once, and one more each `every`."""

    name: str
    burst: int
    every: timedelta

    @property
    def slack(self) -> timedelta:
        """How far ahead of now a subject may be busy, and still take a step."""
        return self.every * (self.burst - 1)


def network_of(address: str | None) -> str:
    """What stands for an address: itself, or its /64, which a single subscriber of IPv6 has whole."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
    return str(ip)


def _now() -> datetime:
    return datetime.now(UTC)


class Throttle:
    """The paces of all subjects.

    Args:
        peppers: keep addresses out of the database: rows are named by keyed hashes.
        clock: the time, in UTC.
        most_subjects: rows to keep.
    """

    def __init__(
        self,
        peppers: PepperSource,
        *,
        clock: Callable[[], datetime] = _now,
        most_subjects: int = MOST_SUBJECTS,
    ) -> None:
        self._peppers = peppers
        self._clock = clock
        self._most = most_subjects

    def step(self, connection: Connection, steps: Sequence[tuple[Pace, str]]) -> None:
        """Take one step for each subject, or for none.

        Raises:
            QuotaExceeded: a subject is too fast. Raised inside a write, it undoes the others' steps.
        """
        now = self._clock()
        connection.execute(delete(paces).where(paces.c.busy_until <= now))
        named = [(pace, self._name(pace, subject)) for pace, subject in steps]
        wait = max((_wait(connection, pace, name, now) for pace, name in named), default=timedelta())
        if wait > timedelta():
            seconds = -(-wait // _SECOND)
            raise QuotaExceeded(f"Too many attempts; ask again in {seconds} s.", retry_after=seconds)
        for pace, name in named:
            self._advance(connection, pace, name, now)

    def _name(self, pace: Pace, subject: str) -> str:
        return self._peppers.latest().mac(f"pace {pace.name} {subject}", self._peppers.latest().current).hex()

    def _advance(self, connection: Connection, pace: Pace, name: str, now: datetime) -> None:
        """One step; the guard stands in the update, since another process may take one beside us."""
        busy = connection.execute(select(paces.c.busy_until).where(paces.c.name == name)).scalar()
        if busy is None:
            self._make_room(connection)
            connection.execute(insert(paces).values(name=name, busy_until=now + pace.every))
            return
        unchanged = (paces.c.name == name, paces.c.busy_until == busy)
        moved = connection.execute(update(paces).where(*unchanged).values(busy_until=busy + pace.every))
        if moved.rowcount == 0:
            raise QuotaExceeded("Too many attempts at once; ask again in 1 s.", retry_after=1)

    def _make_room(self, connection: Connection) -> None:
        count = connection.execute(select(func.count()).select_from(paces)).scalar_one()
        if count < self._most:
            return
        first = select(paces.c.name).order_by(paces.c.busy_until).limit(max(1, self._most // 10))
        connection.execute(delete(paces).where(paces.c.name.in_(first)))


def _wait(connection: Connection, pace: Pace, name: str, now: datetime) -> timedelta:
    busy = connection.execute(select(paces.c.busy_until).where(paces.c.name == name)).scalar()
    return timedelta() if busy is None else busy - now - pace.slack
