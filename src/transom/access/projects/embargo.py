"""When a project's records open: 0, 3, 6 or 12 months after they were made, as its researchers chose.

An embargo can be shortened at any time, and takes effect at once. It can be lengthened too, but a record
that has been open once stays open: nobody can call back what was read.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from sqlalchemy import Connection, insert, select

from transom.errors import InvalidRequest
from transom.storage.tables import embargoes

MONTHS = (0, 3, 6, 12)
"""What can be chosen."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An embargo, and since when it holds."""

    since: datetime
    months: int


def open_from(record_time: datetime, months: int) -> datetime:
    """The moment `months` calendar months later, at the same time of day in UTC.

    Where that month has no such day, its last one is meant: three months after November 30 is the end of
    February.
    """
    moment = record_time.astimezone(UTC)
    years, month = divmod(moment.month - 1 + months, 12)
    year, month = moment.year + years, month + 1
    return moment.replace(year=year, month=month, day=min(moment.day, monthrange(year, month)[1]))


def opens(record_time: datetime, choices: Sequence[Choice]) -> datetime:
    """When a record opens, or opened, under all the choices of its project.

    Args:
        record_time: when the record was made.
        choices: oldest first, at least one; the first counts for what was before it as well.
    """
    for choice, later in pairwise(choices):
        moment = _opening(record_time, choice, first=choice is choices[0])
        if moment < later.since:
            return moment
    return _opening(record_time, choices[-1], first=len(choices) == 1)


def _opening(record_time: datetime, choice: Choice, *, first: bool) -> datetime:
    """When the record opens if `choice` lasts: not before it was made."""
    moment = open_from(record_time, choice.months)
    return moment if first else max(moment, choice.since)


def history(connection: Connection, project_id: str) -> list[Choice]:
    """Every choice of a project, oldest first; none for the server's own projects, which have no embargo."""
    query = (
        select(embargoes.c.since, embargoes.c.months)
        .where(embargoes.c.project_id == project_id)
        .order_by(embargoes.c.number)
    )
    return [Choice(row.since, row.months) for row in connection.execute(query)]


def in_months(connection: Connection, project_id: str) -> int:
    """The embargo of what is recorded in a project now; 0 where none was ever chosen."""
    known = history(connection, project_id)
    return known[-1].months if known else 0


def choose(connection: Connection, project_id: str, months: int, *, by: str, now: datetime) -> None:
    """Note a choice.

    Raises:
        InvalidRequest: it is none of `MONTHS`.
    """
    if months not in MONTHS:
        raise InvalidRequest(
            f"embargo_months must be one of {', '.join(map(str, MONTHS))}, not {months}.",
            param="embargo_months",
        )
    known = history(connection, project_id)
    # A clock that was set back must not put choices out of order.
    since = max([now, *(choice.since for choice in known[-1:])])
    row = {"project_id": project_id, "number": len(known) + 1, "since": since, "months": months}
    connection.execute(insert(embargoes).values(row | {"person_id": by}))
