"""The counters: what is used and held of each limit, in SQL.

Everything here runs inside a write of `Database`, so nobody changes meanwhile what was read. The guard in
the update does not rely on that, nor does the table's own check: each would do alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from transom.access.quotas import ledger
from transom.access.quotas.accounts import Cell
from transom.access.quotas.budgets import DAY_US, NO_WINDOW
from transom.errors import StorageError
from transom.storage.tables import quota_counters, quota_leases


class Count(NamedTuple):
    """What is used and held."""

    used: int
    held: int


_C, _L = quota_counters.c, quota_leases.c

_LOOK = select(_C.account, _C.budget, _C.window_start, _C.used, _C.held).where(
    _C.account.in_(bindparam("accounts", expanding=True)),
    _C.budget.in_(bindparam("budgets", expanding=True)),
    _C.window_start.in_(bindparam("windows", expanding=True)),
)
_AT = (
    _C.account == bindparam("at_account"),
    _C.budget == bindparam("at_budget"),
    _C.window_start == bindparam("at_window"),
)
_MOVE = update(quota_counters).where(*_AT).values(held=_C.held + bindparam("change"))
_GROW = _MOVE.where(_C.used + _C.held + bindparam("change") <= bindparam("most")).values(
    ceiling=bindparam("most")
)

_FORGET = delete(quota_counters).where(
    _C.window_start != NO_WINDOW, _C.window_start < bindparam("before"), _C.held == 0
)


def look(connection: Connection, cells: Sequence[Cell]) -> dict[Cell, Count]:
    """The counters of those cells that have one."""
    if not cells:
        return {}
    wanted = {
        "accounts": sorted({cell.account for cell in cells}),
        "budgets": sorted({cell.budget for cell in cells}),
        "windows": sorted({cell.window_start for cell in cells}),
    }
    # The query takes every combination; few that are not asked for exist.
    rows = connection.execute(_LOOK, wanted)
    found = {Cell(account, budget, window): Count(used, held) for account, budget, window, used, held in rows}
    return {cell: found[cell] for cell in cells if cell in found}


def summed(connection: Connection, cell: Cell) -> Count:
    """What a cell's counter must say, from ledger and leases alone."""
    held = select(func.coalesce(func.sum(_L.amount), 0)).where(
        _L.account == cell.account, _L.budget == cell.budget, _L.window_start == cell.window_start
    )
    return Count(ledger.used(connection, cell), int(connection.execute(held).scalar_one()))


def ensure(connection: Connection, cells: Sequence[Cell]) -> dict[Cell, Count]:
    """The counters of all of the cells; those that are missing are made."""
    found = look(connection, cells)
    for cell in cells:
        if cell not in found:
            count = found[cell] = summed(connection, cell)
            row = {**cell._asdict(), **count._asdict(), "ceiling": sum(count)}
            connection.execute(insert(quota_counters), row)
    return found


def grow(connection: Connection, cell: Cell, change: int, most: int) -> None:
    """Hold `change` more, or less where it is negative, up to the limit `most`.

    Raises:
        StorageError: there is no room for it.
    """
    values = {**_at(cell), "change": change, "most": most}
    if connection.execute(_GROW, values).rowcount != 1:
        raise StorageError(f"The counter of {cell.budget} for {cell.account} changed during a transaction.")


def shrink(connection: Connection, returned: Iterable[tuple[Cell, int]]) -> None:
    """Hold so much less. A counter that is missing will be made without it."""
    rows = [{**_at(cell), "change": -amount} for cell, amount in returned]
    if rows:
        connection.execute(_MOVE, rows)


def forget(connection: Connection, now_us: int) -> None:
    """Delete the counters of windows that ended long ago; the ledger still knows."""
    connection.execute(_FORGET, {"before": now_us - 2 * DAY_US})


def _at(cell: Cell) -> dict[str, str | int]:
    return {"at_account": cell.account, "at_budget": cell.budget, "at_window": cell.window_start}
