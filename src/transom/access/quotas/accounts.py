"""Who is charged: accounts, and the limits on them.

An account is a word and an id, such as `project:prj_…`. Its word says which columns of the ledger name it,
so that what an account used is a question to the ledger alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from transom.access.quotas.budgets import BUDGETS, Budget

KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "key": ("key_id",),
        "person": ("person_id",),
        "project": ("project_id",),
        # Totals are a grant's: the next grant of the project counts from zero.
        "grant": ("grant_id",),
        # What a person or a project did with one model: weights leak model by model.
        "person_model": ("person_id", "model"),
        "project_model": ("project_id", "model"),
        "tier": ("tier",),
        "model": ("model",),
    }
)
"""Kinds of accounts, and their columns of the ledger. Rows are locked in this order."""

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Cell(NamedTuple):
    """What is counted together: one row of the counters."""

    account: str
    budget: str
    window_start: int

    @property
    def order(self) -> tuple[int, str, str, int]:
        """The order in which rows are locked, by everybody."""
        return (_RANK[kind_of(self.account)], *self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """Whom a request is charged to; what is None takes no part."""

    key_id: str | None = None
    person_id: str | None = None
    project_id: str | None = None
    grant_id: str | None = None
    tier: str | None = None
    model: str | None = None

    def accounts(self) -> tuple[str, ...]:
        """Every account that the request counts for."""
        found = []
        for kind, columns in KINDS.items():
            values = [getattr(self, column) for column in columns]
            if None not in values:
                found.append(":".join([kind, *values]))
        return tuple(found)

    def columns(self) -> dict[str, str | None]:
        """The columns of the ledger that say so."""
        return {column: getattr(self, column) for column in self.__slots__}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much of a budget, for an account.

    Raises:
        ValueError: there is no such kind of account or budget, or the limit is negative.
    """

    account: str
    budget: str
    limit: int
    """In the budget's unit: `engine_seconds` in seconds."""
    of: Budget = field(init=False, repr=False, compare=False)
    """What the budget's name stands for."""
    most: int = field(init=False, repr=False, compare=False)
    """The limit in units of the resource, as counters count."""

    def __post_init__(self) -> None:
        if kind_of(self.account) not in KINDS:
            raise ValueError(f"{self.account!r} is no account: its kind must be one of {', '.join(KINDS)}")
        if self.budget not in BUDGETS:
            raise ValueError(f"{self.budget!r} is no budget: it must be one of {', '.join(BUDGETS)}")
        if self.limit < 0:
            raise ValueError(f"the limit of {self.budget} for {self.account} is less than nothing")
        # Asked for many times in each request.
        object.__setattr__(self, "of", BUDGETS[self.budget])
        object.__setattr__(self, "most", self.limit * self.of.scale)


def kind_of(account: str) -> str:
    """The word before the first colon."""
    return account.partition(":")[0]


def values_of(account: str) -> dict[str, str]:
    """The columns of the ledger that name an account, with their values.

    A model's name may hold colons, and is always the last.
    """
    kind, _, rest = account.partition(":")
    columns = KINDS[kind]
    return dict(zip(columns, rest.split(":", len(columns) - 1), strict=True))
