"""The eight budgets: how much may be asked of the models, at once, in a minute, in a day and in all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import ConfigDict, Field

from transom.schema.wire import Body

Budget: TypeAlias = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "tokens_per_day",
    "requests_in_flight",
    "tokens_total",
    "engine_seconds",
    "internals_bytes",
    "released_rank",
]

BUDGETS: tuple[Budget, ...] = get_args(Budget)

TOTALS: frozenset[Budget] = frozenset({"tokens_total", "engine_seconds", "internals_bytes", "released_rank"})
"""Those that are used up for good; the others come back with time, or when a request has ended."""

Amount = Annotated[int, Field(ge=0, lt=2**53)]


class Quotas(Body):
    """An amount of each budget. One that is left out is not limited, or not asked for."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: Amount | None = Field(default=None, description="Requests in a minute")
    tokens_per_minute: Amount | None = Field(
        default=None, description="Tokens in a minute, of prompts and answers"
    )
    tokens_per_day: Amount | None = Field(default=None, description="Tokens in a day of UTC")
    requests_in_flight: Amount | None = Field(default=None, description="Requests that run at once")
    tokens_total: Amount | None = Field(default=None, description="Tokens of the whole grant")
    engine_seconds: Amount | None = Field(
        default=None, description="Seconds of the engine, of the whole grant"
    )
    internals_bytes: Amount | None = Field(
        default=None, description="Bytes read from inside models, of the whole grant"
    )
    released_rank: Amount | None = Field(
        default=None,
        description="Independent vectors about the output matrix, of each deployment, of the whole grant",
    )

    def amounts(self) -> Iterator[tuple[Budget, int]]:
        """The budgets that have an amount."""
        for budget in BUDGETS:
            amount: int | None = getattr(self, budget)
            if amount is not None:
                yield budget, amount

    def filled(self, usual: Quotas) -> Quotas:
        """These, and those of `usual` where these have none."""
        return Quotas.model_validate(dict(usual.amounts()) | dict(self.amounts()))

    def plus(self, more: Quotas) -> Quotas:
        """Both together. What has no limit still has none."""
        added = dict(more.amounts())
        return Quotas.model_validate(
            {budget: amount + added.get(budget, 0) for budget, amount in self.amounts()}
        )

    def beyond(self, most: Quotas) -> list[Budget]:
        """The budgets in which these are more than `most`; no limit is more than any."""
        mine = dict(self.amounts())
        return [budget for budget, limit in most.amounts() if mine.get(budget, limit + 1) > limit]

    def held_back(self, percent: int) -> Quotas:
        """These without `percent` hundredths of each total, rounded down."""
        if not percent:
            return self  # as nearly always, and asked for by every request
        return Quotas.model_validate(
            {
                budget: amount * (100 - percent) // 100 if budget in TOTALS else amount
                for budget, amount in self.amounts()
            }
        )
