"""Reconciling: the counters against the ledger and the leases that they sum up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Subquery,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    select,
    type_coerce,
    update,
)

from transom.access.quotas.accounts import KINDS, Cell
from transom.access.quotas.budgets import BUDGETS, NO_WINDOW
from transom.access.quotas.counters import Count
from transom.storage.tables import quota_counters, quota_leases, quota_ledger

_C, _L = quota_counters.c, quota_leases.c


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that says something else than ledger and leases."""

    cell: Cell
    counted: Count
    true: Count


def check(connection: Connection) -> list[Difference]:
    """Every counter that is wrong; empty when none is. May run beside everything else."""
    found: dict[Cell, Difference] = {}
    for sums in (*_used_sums(connection), _held_sums()):
        for difference in _differences(connection, sums):
            known = found.get(difference.cell, difference)
            used = difference.true.used if sums.is_used else known.true.used
            held = known.true.held if sums.is_used else difference.true.held
            found[difference.cell] = Difference(difference.cell, difference.counted, Count(used, held))
    return sorted(found.values(), key=lambda difference: difference.cell.order)


def rebuild(connection: Connection) -> int:
    """Make every counter say what ledger and leases do; how many were wrong, or missing for a lease.

    Raises ceilings where it must: what was used was used.
    """
    _add_missing(connection)
    differences = check(connection)
    if differences:
        connection.execute(_CORRECT, [_correction(difference) for difference in differences])
    return len(differences)


_USED, _HELD = bindparam("true_used", type_=BigInteger), bindparam("true_held", type_=BigInteger)
_CORRECT = (
    update(quota_counters)
    .where(
        _C.account == bindparam("in_account"),
        _C.budget == bindparam("in_budget"),
        _C.window_start == bindparam("in_window"),
    )
    .values(
        used=_USED,
        held=_HELD,
        ceiling=case((_C.ceiling < _USED + _HELD, _USED + _HELD), else_=_C.ceiling),
    )
)


def _correction(difference: Difference) -> dict[str, str | int]:
    return {
        "in_account": difference.cell.account,
        "in_budget": difference.cell.budget,
        "in_window": difference.cell.window_start,
        "true_used": difference.true.used,
        "true_held": difference.true.held,
    }


@dataclass(frozen=True, slots=True)
class _Sums:
    """What some of the counters should say."""

    table: Subquery
    """account, window_start, total, and budget for leases."""
    concerned: tuple[ColumnElement[bool], ...]
    """Which counters."""
    is_used: bool

    @property
    def counter(self) -> ColumnElement[int]:
        return _C.used if self.is_used else _C.held

    @property
    def same(self) -> ColumnElement[bool]:
        same = (_C.account == self.table.c.account) & (_C.window_start == self.table.c.window_start)
        return same if self.is_used else same & (_C.budget == self.table.c.budget)


def _used_sums(connection: Connection) -> Iterator[_Sums]:
    """One pass over the ledger for each kind of account and budget that has counters."""
    kind = case(*((_C.account.startswith(f"{name}:", autoescape=True), name) for name in KINDS), else_="")
    present = {(row[0], row[1]) for row in connection.execute(select(kind, _C.budget).distinct())}
    for budget in BUDGETS.values():
        for name in KINDS:
            if (name, budget.name) in present:
                yield _used_by(name, budget.name)


@cache
def _used_by(kind: str, budget_name: str) -> _Sums:
    budget = BUDGETS[budget_name]
    columns = [quota_ledger.c[column] for column in KINDS[kind]]
    account: ColumnElement[str] = literal(kind, Text)
    for column in columns:
        account = account.concat(":").concat(column)
    reserved = type_coerce(quota_ledger.c.reserved, BigInteger)
    start: ColumnElement[int] = literal_column(str(NO_WINDOW), BigInteger)
    if budget.period_us is not None:
        start = reserved - reserved % literal_column(str(budget.period_us), BigInteger)
    each = select(
        account.label("account"), start.label("window_start"), quota_ledger.c[budget.resource].label("amount")
    ).where(*(column.is_not(None) for column in columns))
    rows = (each if budget.spends else each.where(false())).subquery()
    total = cast(func.sum(rows.c.amount), BigInteger).label("total")
    table = (
        select(rows.c.account, rows.c.window_start, total)
        .group_by(rows.c.account, rows.c.window_start)
        .subquery()
    )
    concerned = (_C.budget == budget.name, _C.account.startswith(f"{kind}:", autoescape=True))
    return _Sums(table, concerned, is_used=True)


@cache
def _held_sums() -> _Sums:
    total = cast(func.sum(_L.amount), BigInteger).label("total")
    columns = (_L.account, _L.budget, _L.window_start)
    return _Sums(select(*columns, total).group_by(*columns).subquery(), (), is_used=False)


def _differences(connection: Connection, sums: _Sums) -> list[Difference]:
    true = func.coalesce(sums.table.c.total, 0)
    joined = quota_counters.outerjoin(sums.table, sums.same)
    query = (
        select(_C.account, _C.budget, _C.window_start, _C.used, _C.held, true.label("true"))
        .select_from(joined)
        .where(*sums.concerned, sums.counter != true)
    )
    return [
        Difference(
            Cell(*row[:3]),
            Count(row.used, row.held),
            Count(row.true, row.held) if sums.is_used else Count(row.used, row.true),
        )
        for row in connection.execute(query)
    ]


def _add_missing(connection: Connection) -> int:
    """Counters for leases that have none."""
    held = select(_L.account, _L.budget, _L.window_start).distinct().subquery()
    known = exists().where(
        _C.account == held.c.account, _C.budget == held.c.budget, _C.window_start == held.c.window_start
    )
    zeros = [literal_column("0", BigInteger) for _ in range(3)]
    missing = select(held.c.account, held.c.budget, held.c.window_start, *zeros).where(~known)
    added = insert(quota_counters).from_select(list(quota_counters.c.keys()), missing)
    return connection.execute(added.execution_options(preserve_rowcount=True)).rowcount


def drop(connection: Connection) -> None:
    """Delete every counter. Each is made again, from ledger and leases, when it is needed."""
    connection.execute(delete(quota_counters))
