"""Posting: what charges change in counters and leases.

Every request that is answered pays for this, so it is two statements, the same two for any accounts and
limits: the accounts stand in fixed places, and which of their budgets hold something is a number's bits.
Requests that charge the same cells share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Text,
    bindparam,
    case,
    column,
    literal_column,
    tuple_,
    update,
    values,
)

from transom.access.quotas.accounts import KINDS, Cell
from transom.access.quotas.budgets import BUDGETS, NO_WINDOW, SPENDING, Amounts
from transom.errors import StorageError
from transom.storage.prepared import Prepared
from transom.storage.tables import quota_counters, quota_leases

_C, _L = quota_counters.c, quota_leases.c

_BIT = {budget.name: 1 << index for index, budget in enumerate(SPENDING)}
_ACCOUNTS: list[BindParameter[Any]] = [bindparam(f"account_{place}") for place in range(len(KINDS))]
_MASKS = [bindparam(f"mask_{place}", type_=Integer) for place in range(len(KINDS))]
_LENGTHS = sorted({budget.period_us for budget in SPENDING if budget.period_us is not None})
_WINDOW = {length: bindparam(f"window_{length}", type_=BigInteger) for length in _LENGTHS}
_NOBODY = ""

Key: TypeAlias = "tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]"


def _text(name: str) -> ColumnElement[str]:
    # A constant that is a word of ours; parameters cost time in every call.
    return literal_column(f"'{name}'")


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


def _charge(budget: ColumnElement[str]) -> ColumnElement[int]:
    amounts: list[tuple[ColumnElement[bool], BindParameter[Any]]] = [
        (budget == _text(each.name), bindparam(f"of_{each.resource}")) for each in SPENDING
    ]
    return case(*amounts, else_=literal_column("0"))


def _holds(account: ColumnElement[str], budget: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether what is charged to a cell was held for the request."""
    places = zip(_ACCOUNTS, _MASKS, strict=True)
    mask: ColumnElement[int] = case(*((account == name, bits) for name, bits in places), else_=_number(0))
    bits = [(budget == _text(name), _number(bit)) for name, bit in _BIT.items()]
    return mask.bitwise_and(case(*bits, else_=_number(0))) != _number(0)


def _among(account: Column[str], budget: Column[str], window_start: Column[int]) -> list[ColumnElement[bool]]:
    """The cells of a request's accounts, in the windows of its moment."""
    # Pairs, for each budget has one window: SQLite looks up every cell that is described.
    now = values(column("budget", Text), column("window_start", BigInteger), name="now").data(
        [
            (_text(each.name), _number(NO_WINDOW) if each.period_us is None else _WINDOW[each.period_us])
            for each in SPENDING
        ]
    )
    return [account.in_(_ACCOUNTS), tuple_(budget, window_start).in_(now.scalar_values())]


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
        self._amounts = amounts.by_resource()
        masks = dict.fromkeys(accounts, 0)
        for cell in held:
            if self._amounts[BUDGETS[cell.budget].resource] and cell.budget in _BIT:
                masks[cell.account] |= _BIT[cell.budget]
        self.key: Key = (
            tuple(accounts),
            tuple([reserved_us - reserved_us % length for length in _LENGTHS]),
            tuple(masks.values()),
        )
        """Charges with the same key can be added up."""

    def add(self, other: Posting) -> None:
        """Charge what another one charges too, which has the same key; before anything is executed."""
        for resource, amount in other._amounts.items():
            self._amounts[resource] += amount

    def take_from_leases(self, connection: Connection, gateway: str) -> bool:
        """Take what is held for the request from its gateway's leases; False where they have expired."""
        held = self._held
        if not held:
            return True
        taken = _TAKE.execute(connection, {**self._values, "gateway_id": gateway})
        if taken not in (0, held):
            raise StorageError("Some leases of a gateway are gone, and others not; rebuild the counters.")
        return taken != 0

    def count(self, connection: Connection) -> bool:
        """Make used what was held, and count what was not held; whether there was any of the latter."""
        return any(self._amounts.values()) and _COUNT.execute(connection, self._values) > self._held

    @property
    def _held(self) -> int:
        """In how many cells something is held."""
        return sum(mask.bit_count() for mask in self.key[2])

    @cached_property
    def _values(self) -> dict[str, str | int]:
        accounts, windows, masks = self.key
        found: dict[str, str | int] = {f"of_{name}": amount for name, amount in self._amounts.items()}
        missing = len(KINDS) - len(accounts)
        for place, account in enumerate([*accounts, *[_NOBODY] * missing]):
            found[f"account_{place}"] = account
        for place, mask in enumerate([*masks, *[0] * missing]):
            found[f"mask_{place}"] = mask
        for length, window in zip(_LENGTHS, windows, strict=True):
            found[f"window_{length}"] = window
        return found
