"""Posting: what one request's charge changes in counters and leases.

Every request that is answered pays for this, so it is two statements, the same two for any accounts and
limits: the accounts stand in fixed places, and which of their budgets hold something is a number's bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    bindparam,
    case,
    literal_column,
    update,
)

from transom.access.quotas.accounts import KINDS, Cell
from transom.access.quotas.budgets import RESOURCES, SPENDING, Amounts, windows_of
from transom.errors import StorageError
from transom.storage.prepared import Prepared
from transom.storage.tables import quota_counters, quota_leases

_C, _L = quota_counters.c, quota_leases.c

_BIT = {budget.name: 1 << index for index, budget in enumerate(SPENDING)}
_ACCOUNTS: list[BindParameter[Any]] = [bindparam(f"account_{place}") for place in range(len(KINDS))]
_MASKS = [bindparam(f"mask_{place}", type_=Integer) for place in range(len(KINDS))]
_WINDOWS: list[BindParameter[Any]] = [
    bindparam(f"window_{place}") for place in range(len({budget.period_us for budget in SPENDING}))
]
_NOBODY = ""


def _text(name: str) -> ColumnElement[str]:
    # A constant that is a word of ours; parameters cost time in every call.
    return literal_column(f"'{name}'")


def _charge(budget: ColumnElement[str]) -> ColumnElement[int]:
    amounts: list[tuple[ColumnElement[bool], BindParameter[Any]]] = [
        (budget == _text(each.name), bindparam(f"of_{each.resource}")) for each in SPENDING
    ]
    return case(*amounts, else_=literal_column("0"))


def _holds(account: ColumnElement[str], budget: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether what is charged to a cell was held for the request."""
    zero = literal_column("0", Integer)
    places = zip(_ACCOUNTS, _MASKS, strict=True)
    mask: ColumnElement[int] = case(*((account == name, bits) for name, bits in places), else_=zero)
    bits = [(budget == _text(name), literal_column(str(bit), Integer)) for name, bit in _BIT.items()]
    return mask.bitwise_and(case(*bits, else_=zero)) != zero


def _among(
    account: ColumnElement[str], budget: ColumnElement[str], window_start: ColumnElement[int]
) -> list[ColumnElement[bool]]:
    """The cells of a request's accounts, in the windows of its moment."""
    return [
        account.in_(_ACCOUNTS),
        budget.in_([_text(each.name) for each in SPENDING]),
        window_start.in_(_WINDOWS),
    ]


_FROM_HOLD = case((_holds(_C.account, _C.budget), _charge(_C.budget)), else_=literal_column("0"))
_TOTAL = _C.used + _C.held + _charge(_C.budget) - _FROM_HOLD
# A cell that had no limit for this request counts it all the same, as if the limit had been lowered below it.
_COUNT = Prepared(
    update(quota_counters)
    .where(*_among(_C.account, _C.budget, _C.window_start))
    .values(
        used=_C.used + _charge(_C.budget),
        held=_C.held - _FROM_HOLD,
        ceiling=case((_C.ceiling < _TOTAL, _TOTAL), else_=_C.ceiling),
    )
)
_TAKE = Prepared(
    update(quota_leases)
    .where(
        _L.gateway == bindparam("gateway_id"),
        *_among(_L.account, _L.budget, _L.window_start),
        _holds(_L.account, _L.budget),
    )
    .values(amount=_L.amount - _charge(_L.budget))
)


class Posting:
    """The charge of one request.

    Args:
        accounts: everybody who is charged.
        reserved_us: the moment that decides the windows, in microseconds since 1970.
        amounts: what is charged.
        held: the cells in which that much is held for the request.
    """

    def __init__(
        self, accounts: Sequence[str], reserved_us: int, amounts: Amounts, held: Iterable[Cell]
    ) -> None:
        charged = {budget.name for budget in SPENDING if amounts.of(budget.resource)}
        masks = dict.fromkeys(accounts, 0)
        for cell in held:
            if cell.budget in charged:
                masks[cell.account] |= _BIT[cell.budget]
        self._held = sum(mask.bit_count() for mask in masks.values())
        self._values: dict[str, str | int] = {f"of_{name}": amounts.of(name) for name in RESOURCES}
        for place in range(len(KINDS)):
            known = place < len(accounts)
            account = accounts[place] if known else _NOBODY
            self._values[f"account_{place}"] = account
            self._values[f"mask_{place}"] = masks[account] if known else 0
        # At midnight windows of different lengths begin together.
        windows = sorted(windows_of(reserved_us))
        for place in range(len(_WINDOWS)):
            self._values[f"window_{place}"] = windows[min(place, len(windows) - 1)]
        self._empty = not charged

    def take_from_leases(self, connection: Connection, gateway: str) -> bool:
        """Take what is held for the request from its gateway's leases; False where they have expired."""
        if not self._held:
            return True
        taken = _TAKE.execute(connection, {**self._values, "gateway_id": gateway})
        if taken not in (0, self._held):
            raise StorageError("Some leases of a gateway are gone, and others not; rebuild the counters.")
        return taken != 0

    def count(self, connection: Connection) -> bool:
        """Make used what was held, and count what was not held; whether there was any of the latter."""
        return not self._empty and _COUNT.execute(connection, self._values) > self._held
