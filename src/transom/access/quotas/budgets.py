"""What is limited: resources, the budgets that count them, and the windows of a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal, get_args

Resource = Literal["requests", "tokens", "engine_us", "internals_bytes", "released_rank"]
"""A column of the ledger. Engine time is in microseconds."""

RESOURCES: tuple[Resource, ...] = get_args(Resource)

MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 24 * 60 * MINUTE_US
NO_WINDOW = 0
VECTOR = 1_000_000
"""One vector over the whole vocabulary in the ledger's unit: what is released are parts of vectors too."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of each resource: what a request may need, or what it used.

    Raises:
        ValueError: an amount is negative.
    """

    requests: int = 1
    tokens: int = 0
    """Of the prompt, and generated."""
    engine_us: int = 0
    internals_bytes: int = 0
    released_rank: int = 0
    """Millionths of independent vectors over the whole vocabulary; see `VECTOR`."""

    def __post_init__(self) -> None:
        if self.requests < 0 or self.tokens < 0 or self.engine_us < 0:
            raise ValueError(f"{self} is less than nothing")
        if self.internals_bytes < 0 or self.released_rank < 0:
            raise ValueError(f"{self} is less than nothing")

    def of(self, resource: Resource) -> int:
        """The amount of one resource."""
        amount: int = getattr(self, resource)
        return amount

    def by_resource(self) -> dict[str, int]:
        """All of them, by name, in the order of `RESOURCES`."""
        # Spelled out, for every request is asked for it several times.
        return {
            "requests": self.requests,
            "tokens": self.tokens,
            "engine_us": self.engine_us,
            "internals_bytes": self.internals_bytes,
            "released_rank": self.released_rank,
        }


NOTHING = Amounts(requests=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One kind of limit."""

    name: str
    resource: Resource
    period_us: int | None = None
    """Length of its windows; None where it counts for ever, or only what is in flight."""
    spends: bool = True
    """Whether what was used stays used; otherwise only holds count."""
    scale: int = 1
    """How many units of the resource make one unit of the limit."""
    unit: str

    def window_start(self, moment_us: int) -> int:
        """Where the window of a moment begins, in microseconds since 1970; `NO_WINDOW` without windows.

        Windows are aligned to UTC and depend on nothing else: POSIX time has days of equal length, and 1970
        began with one.
        """
        return NO_WINDOW if self.period_us is None else moment_us - moment_us % self.period_us

    def window_end(self, window_start: int) -> int | None:
        """Where that window ends; None without windows."""
        return None if self.period_us is None else window_start + self.period_us


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        budget.name: budget
        for budget in (
            Budget(name="requests_per_minute", resource="requests", period_us=MINUTE_US, unit="requests"),
            Budget(name="requests_in_flight", resource="requests", spends=False, unit="requests"),
            Budget(name="tokens_per_minute", resource="tokens", period_us=MINUTE_US, unit="tokens"),
            Budget(name="tokens_per_day", resource="tokens", period_us=DAY_US, unit="tokens"),
            Budget(name="tokens_total", resource="tokens", unit="tokens"),
            Budget(name="engine_seconds", resource="engine_us", scale=SECOND_US, unit="seconds"),
            Budget(name="internals_bytes", resource="internals_bytes", unit="bytes"),
            Budget(name="released_rank", resource="released_rank", scale=VECTOR, unit="vectors"),
        )
    }
)
"""Every budget there is, by name."""

SPENDING: tuple[Budget, ...] = tuple(budget for budget in BUDGETS.values() if budget.spends)


def moment_of(microseconds_since_1970: int) -> datetime:
    """The moment that `microseconds` gives that number for."""
    return _EPOCH + microseconds_since_1970 * MICROSECOND
