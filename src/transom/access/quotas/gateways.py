"""Gateways: who holds leases, and what becomes of them when it dies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from transom.access.quotas import counters
from transom.access.quotas.accounts import Cell
from transom.storage.tables import quota_gateways, quota_leases

_G, _L = quota_gateways.c, quota_leases.c

_BEAT = update(quota_gateways).where(_G.id == bindparam("gateway")).values(beat=_G.beat + 1)
_AT = (
    _L.gateway == bindparam("at_gateway"),
    _L.account == bindparam("at_account"),
    _L.budget == bindparam("at_budget"),
    _L.window_start == bindparam("at_window"),
)
_CHANGE = update(quota_leases).where(*_AT).values(amount=_L.amount + bindparam("change"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """What a sweep does in SQL, all at once."""

    beating: Sequence[str] = ()
    """Gateways that are alive."""
    returned: Mapping[str, Mapping[Cell, int]] = field(default_factory=dict)
    """What gateways hold and do not need."""
    dissolved: Sequence[str] = ()
    """Gateways that are over, and hold nothing for anybody."""
    unmoved: Mapping[str, int] = field(default_factory=dict)
    """Gateways that are taken for dead, with the beat at which they stopped."""
    now_us: int
    """The time, in microseconds since 1970: counters of windows long past are forgotten."""


@dataclass(frozen=True, slots=True)
class Found:
    """What it found."""

    lost: tuple[str, ...]
    """Those of `beating` that were taken for dead by others."""
    beats: Mapping[str, int]
    """Every gateway there is."""


def register(connection: Connection, gateway: str, started: datetime) -> None:
    """Begin."""
    connection.execute(insert(quota_gateways), {"id": gateway, "beat": 0, "started": started})


def beat(connection: Connection, gateway: str) -> bool:
    """Show that a gateway lives; False where others took it for dead, and all that it held is gone."""
    return connection.execute(_BEAT, {"gateway": gateway}).rowcount == 1


def change(connection: Connection, gateway: str, cell: Cell, amount: int) -> None:
    """Let a gateway hold so much more of a cell, or less."""
    values = {
        "at_gateway": gateway,
        "at_account": cell.account,
        "at_budget": cell.budget,
        "at_window": cell.window_start,
        "change": amount,
    }
    if connection.execute(_CHANGE, values).rowcount == 0:
        connection.execute(insert(quota_leases), {"gateway": gateway, **cell._asdict(), "amount": amount})


def care(connection: Connection, work: Care) -> Found:
    """Do a sweep's work."""
    lost = tuple(gateway for gateway in work.beating if not beat(connection, gateway))
    for gateway, cells in work.returned.items():
        if gateway not in lost:
            _give_back(connection, gateway, cells)
    # What is held for a request is more than nothing, so no request stands on these.
    connection.execute(delete(quota_leases).where(_L.gateway.in_(work.beating), _L.amount == 0))
    for gateway in work.dissolved:
        dissolve(connection, gateway)
    for gateway, seen in work.unmoved.items():
        dissolve(connection, gateway, seen)
    counters.forget(connection, work.now_us)
    rows = connection.execute(select(_G.id, _G.beat))
    return Found(lost, {row.id: row.beat for row in rows})


def dissolve(connection: Connection, gateway: str, seen: int | None = None) -> bool:
    """End a gateway, and give everything back that it holds.

    Args:
        connection: of a write.
        gateway: whose end it is.
        seen: the beat at which it stopped; with one more it lives, and nothing happens.

    Returns:
        Whether it is over now by this.
    """
    still = select(_G.beat).where(_G.id == gateway)
    if (last := connection.execute(still).scalar_one_or_none()) is None or seen not in (None, last):
        return False
    held = connection.execute(
        select(_L.account, _L.budget, _L.window_start, _L.amount).where(_L.gateway == gateway)
    )
    _shrink(connection, {Cell(*row[:3]): row[3] for row in held})
    connection.execute(delete(quota_leases).where(_L.gateway == gateway))
    connection.execute(delete(quota_gateways).where(_G.id == gateway))
    return True


def _give_back(connection: Connection, gateway: str, cells: Mapping[Cell, int]) -> None:
    for cell, amount in _ordered(cells):
        if amount:
            change(connection, gateway, cell, -amount)
    _shrink(connection, cells)


def _shrink(connection: Connection, cells: Mapping[Cell, int]) -> None:
    counters.shrink(connection, [(cell, amount) for cell, amount in _ordered(cells) if amount])


def _ordered(cells: Mapping[Cell, int]) -> Iterable[tuple[Cell, int]]:
    return sorted(cells.items(), key=lambda item: item[0].order)
