"""The ledger: what every request used, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    cast,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from transom.access.quotas.accounts import Cell, Charged, values_of
from transom.access.quotas.budgets import BUDGETS, DAY_US, RESOURCES, Amounts, Resource, moment_of
from transom.storage.prepared import Prepared
from transom.storage.tables import UtcTime, microseconds, quota_ledger

Outcome = Literal["settled", "released", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row to be."""

    request_id: str
    charged: Charged
    reserved: datetime
    closed: datetime
    outcome: Outcome
    amounts: Amounts
    short: bool = False
    """Whether more was used than `amounts` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayUsage:
    """What was used in one day of UTC."""

    day: date
    requests: int
    tokens: int
    engine_us: int
    internals_bytes: int
    released_rank: int


# Moments go in as their microseconds.
_ROW: dict[str, BindParameter[Any]] = {
    column.name: bindparam(column.name, type_=BigInteger if isinstance(column.type, UtcTime) else column.type)
    for column in quota_ledger.c
}
# The two dialects spell it alike, and share no name for it.
_ENTER: Mapping[str, Prepared] = {
    name: Prepared(dialect.insert(quota_ledger).values(_ROW).on_conflict_do_nothing())
    for name, dialect in {"sqlite": sqlite, "postgresql": postgresql}.items()
}
_CORRECT = (
    update(quota_ledger)
    .where(quota_ledger.c.request_id == bindparam("corrected"))
    .values({name: bindparam(name) for name in ("outcome", "short", *RESOURCES)})
)


def enter(connection: Connection, entry: Entry) -> bool:
    """Write a request's row; False, and nothing is changed, where it has one."""
    return _ENTER[connection.dialect.name].execute(connection, _row(entry)) == 1


def enter_all(connection: Connection, entries: Sequence[Entry]) -> int:
    """`enter` one or more; how many of them had no row."""
    return _ENTER[connection.dialect.name].execute_each(connection, [_row(entry) for entry in entries])


def _row(entry: Entry) -> dict[str, object]:
    return {
        "request_id": entry.request_id,
        **entry.charged.columns(),
        "reserved": microseconds(entry.reserved),
        "closed": microseconds(entry.closed),
        "outcome": entry.outcome,
        "short": entry.short,
        **entry.amounts.by_resource(),
    }


def correct(
    connection: Connection, request_id: str, outcome: Outcome, amounts: Amounts, *, short: bool
) -> None:
    """Say something else of a row that was entered in this same transaction."""
    row = {"corrected": request_id, "outcome": outcome, "short": short, **amounts.by_resource()}
    connection.execute(_CORRECT, row)


def used(connection: Connection, cell: Cell) -> int:
    """What an account used of a budget in a window: the sum of its rows."""
    budget = BUDGETS[cell.budget]
    if not budget.spends:
        return 0
    query = select(_sum(budget.resource)).where(*_named(values_of(cell.account)))
    end = budget.window_end(cell.window_start)
    if end is not None:
        query = query.where(*_between(moment_of(cell.window_start), moment_of(end)))
    total: int = connection.execute(query).scalar_one()
    return total


def usage(connection: Connection, account: str, since: datetime, until: datetime) -> list[DayUsage]:
    """What an account used from `since` to just before `until`, by day, days without use left out."""
    # Whole days since 1970; the moment of the reserve decides, as it does for windows.
    day = type_coerce(quota_ledger.c.reserved, BigInteger).op("/", return_type=BigInteger())(DAY_US)
    query = (
        select(day.label("day"), *(_sum(resource).label(resource) for resource in RESOURCES))
        .where(*_named(values_of(account)), *_between(since, until))
        .group_by(day)
        .order_by(day)
    )
    return [
        DayUsage(day=moment_of(row.pop("day") * DAY_US).date(), **row)
        for row in map(dict, connection.execute(query).mappings())
    ]


def _sum(resource: Resource) -> ColumnElement[int]:
    # PostgreSQL adds bigints up to a numeric.
    return cast(func.coalesce(func.sum(quota_ledger.c[resource]), 0), BigInteger)


def _named(values: Mapping[str, str]) -> list[ColumnElement[bool]]:
    return [quota_ledger.c[column] == value for column, value in values.items()]


def _between(since: datetime, until: datetime) -> list[ColumnElement[bool]]:
    return [quota_ledger.c.reserved >= since, quota_ledger.c.reserved < until]
