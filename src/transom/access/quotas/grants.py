"""Granting: requests that no lease covers are decided in SQL, in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from transom.access.quotas import counters, gateways
from transom.access.quotas.accounts import Cell, Limit
from transom.access.quotas.counters import Count

SHARE = 8
"""A gateway takes at most this part of what is left beyond what its requests need: the nearer the limit, the
smaller its lease, down to nothing."""


class Need(NamedTuple):
    """What a request needs under one limit."""

    cell: Cell
    limit: Limit
    amount: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """A limit that does not let a request through, and what stood there."""

    need: Need
    count: Count


class Fenced(Exception):
    """Others took this gateway for dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a gateway asks SQL for."""

    gateway: str
    register: datetime | None
    """When it began, where it does with this."""
    needs: Sequence[Sequence[Need]]
    """Of each request."""
    returned: Mapping[Cell, int]
    """What the gateway held unused in these cells: SQL decides as if it held nothing."""
    appetite: Mapping[Cell, int]
    """How many times a request's need it would like to hold beyond it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a gateway was given of a cell."""

    spare: int
    """Beyond what the requests need that were let through."""
    count: Count
    """The counter then."""
    limit: int | None
    """The limit under which it was given; None where no request was let through."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer."""

    verdicts: tuple[tuple[Shortage, ...], ...]
    """For each request, what stands against it; nothing where it was let through."""
    shares: Mapping[Cell, Share]


@dataclass(slots=True)
class _Account:
    """A cell while it is being decided."""

    before: Count
    held: int
    most: int | None = None
    limit: int | None = None
    largest: int = 0
    spare: int = 0


def grant(connection: Connection, ask: Ask) -> Granted:
    """Decide requests one after another, each by all of its limits at once, and hold what they need.

    Raises:
        Fenced: others took the gateway for dead; nothing was changed.
    """
    _enter(connection, ask)
    needed = {need.cell for needs in ask.needs for need in needs}
    cells = sorted(needed | set(ask.returned), key=lambda cell: cell.order)
    counts = counters.ensure(connection, cells)
    state = {cell: _Account(counts[cell], counts[cell].held - ask.returned.get(cell, 0)) for cell in cells}
    verdicts = tuple(_decide(state, needs) for needs in ask.needs)
    for cell in cells:
        _spare(state[cell], ask.appetite.get(cell, 0))
        _write(connection, ask.gateway, cell, state[cell])
    return Granted(verdicts, {cell: _share(account) for cell, account in state.items()})


def _enter(connection: Connection, ask: Ask) -> None:
    if ask.register is not None:
        gateways.register(connection, ask.gateway, ask.register)
    elif not gateways.beat(connection, ask.gateway):
        raise Fenced


def _decide(state: Mapping[Cell, _Account], needs: Sequence[Need]) -> tuple[Shortage, ...]:
    short = tuple(
        Shortage(need, Count(account.before.used, account.held))
        for need in needs
        if (account := state[need.cell]).before.used + account.held + need.amount > need.limit.most
    )
    if not short:
        for need in needs:
            account = state[need.cell]
            account.held += need.amount
            account.most = max(account.most or 0, need.limit.most)
            account.limit = need.limit.most
            account.largest = max(account.largest, need.amount)
    return short


def _spare(account: _Account, appetite: int) -> None:
    if account.limit is not None:
        left = max(0, account.limit - account.before.used - account.held)
        account.spare = min(account.largest * appetite, left // SHARE)
        account.held += account.spare


def _write(connection: Connection, gateway: str, cell: Cell, account: _Account) -> None:
    change = account.held - account.before.held
    if account.most is not None:
        counters.grow(connection, cell, change, account.most)
    elif change:
        counters.shrink(connection, [(cell, -change)])
    if change:
        gateways.change(connection, gateway, cell, change)


def _share(account: _Account) -> Share:
    return Share(account.spare, Count(account.before.used, account.held), account.limit)
