"""Posting: what charges change in counters and leases.

Every request that is answered pays for this, so it is three statements, the same three for any accounts and
limits. Requests that charge the same cells share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from sqlalchemy import BigInteger, Connection, Text, bindparam, case, text, update

from transom.access.quotas.accounts import KINDS, Cell
from transom.access.quotas.budgets import NO_WINDOW, SPENDING, Amounts
from transom.errors import StorageError
from transom.storage.prepared import Prepared
from transom.storage.tables import quota_counters, quota_leases

_C, _L = quota_counters.c, quota_leases.c

_LENGTHS = sorted({budget.period_us for budget in SPENDING if budget.period_us is not None})
_WINDOWS = tuple(f"window_{length}" for length in _LENGTHS)
_ACCOUNTS = tuple(f"account_{place}" for place in range(len(KINDS)))
_ALL_NOBODY = dict.fromkeys(_ACCOUNTS, "")

Key: TypeAlias = "tuple[tuple[str, ...], tuple[int, ...], tuple[Cell, ...]]"


def _there() -> str:
    """Which counters there are of some accounts, in the windows of a moment.

    CROSS JOIN, so that SQLite looks up every cell that is described. By itself it would look through all the
    windows that an account has.
    """
    accounts = ", ".join(f"(:{name})" for name in _ACCOUNTS)
    windows = ", ".join(
        f"('{each.name}', {NO_WINDOW if each.period_us is None else f':window_{each.period_us}'})"
        for each in SPENDING
    )
    return (
        f"SELECT c.account, c.budget, c.window_start FROM (VALUES {accounts}) AS a"  # noqa: S608  # our words
        f" CROSS JOIN (VALUES {windows}) AS b CROSS JOIN {quota_counters.name} AS c"
        " WHERE c.account = a.column1 AND c.budget = b.column1 AND c.window_start = b.column2"
    )


_THERE = Prepared(
    text(_there()).bindparams(
        *(bindparam(name, type_=Text) for name in _ACCOUNTS),
        *(bindparam(name, type_=BigInteger) for name in _WINDOWS),
    )
)
_TOTAL = _C.used + _C.held + bindparam("growth")
# A cell that had no limit for this request counts it all the same, as if the limit had been lowered below it.
_COUNT = Prepared(
    update(quota_counters)
    .where(
        _C.account == bindparam("in_account"),
        _C.budget == bindparam("in_budget"),
        _C.window_start == bindparam("in_window"),
    )
    .values(
        used=_C.used + bindparam("charge"),
        held=_C.held - bindparam("freed"),
        ceiling=case((_C.ceiling < _TOTAL, _TOTAL), else_=_C.ceiling),
    )
)
_TAKE = Prepared(
    update(quota_leases)
    .where(
        _L.gateway == bindparam("in_gateway"),
        _L.account == bindparam("in_account"),
        _L.budget == bindparam("in_budget"),
        _L.window_start == bindparam("in_window"),
    )
    .values(amount=_L.amount - bindparam("charge"))
)


class Posting:
    """The charge of one request, or of several that charge the same cells.

    Args:
        accounts: everybody who is charged.
        reserved_us: the moment that decides the windows, in microseconds since 1970.
        amounts: what is charged.
        held: the cells in which that much is held for the request.
    """

    def __init__(
        self, accounts: Sequence[str], reserved_us: int, amounts: Amounts, held: Iterable[Cell]
    ) -> None:
        by_resource = amounts.by_resource()
        self._of = {budget.name: by_resource[budget.resource] for budget in SPENDING}
        self.key: Key = (
            tuple(accounts),
            tuple([reserved_us - reserved_us % length for length in _LENGTHS]),
            tuple([cell for cell in held if self._of.get(cell.budget)]),
        )
        """Charges with the same key can be added up."""

    def add(self, other: Posting) -> None:
        """Charge what another one charges too, which has the same key; before anything is executed."""
        for budget, amount in other._of.items():
            self._of[budget] += amount

    def take_from_leases(self, connection: Connection, gateway: str) -> bool:
        """Take what is held for the request from its gateway's leases; False where they have expired."""
        held = self.key[2]
        if not held:
            return True
        rows = [
            {
                "charge": self._of[cell.budget],
                "in_gateway": gateway,
                "in_account": cell.account,
                "in_budget": cell.budget,
                "in_window": cell.window_start,
            }
            for cell in held
        ]
        taken = _TAKE.execute_each(connection, rows)
        if taken not in (0, len(held)):
            raise StorageError("Some leases of a gateway are gone, and others not; rebuild the counters.")
        return taken != 0

    def count(self, connection: Connection) -> bool:
        """Make used what was held, and count what was not held; whether there was any of the latter."""
        there = self._there(connection)
        if not there:
            return False
        held = set(self.key[2])
        _COUNT.execute_each(connection, [self._counted(cell, freed=cell in held) for cell in there])
        return len(there) > len(held)

    def _counted(self, cell: Cell, *, freed: bool) -> dict[str, str | int]:
        account, budget, window_start = cell
        charge = self._of[budget]
        return {
            "charge": charge,
            "freed": charge if freed else 0,
            "growth": 0 if freed else charge,
            "in_account": account,
            "in_budget": budget,
            "in_window": window_start,
        }

    def _there(self, connection: Connection) -> list[Cell]:
        """The counters that this charges. What has none is summed up from the ledger once it gets one."""
        accounts, windows, _ = self.key
        if not any(self._of.values()):
            return []
        values: dict[str, str | int] = dict(zip(_WINDOWS, windows, strict=True))
        values.update(_ALL_NOBODY)
        values.update(zip(_ACCOUNTS, accounts, strict=False))
        return [cell for cell in _THERE.rows(connection, values) if self._of[cell[1]]]
