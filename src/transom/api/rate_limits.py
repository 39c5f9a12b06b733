"""Headers that tell a client where its limits stand, in both families of names.

`x-ratelimit-*` are OpenAI's; `RateLimit` and `RateLimit-Policy` are those of the IETF
(draft-ietf-httpapi-ratelimit-headers). Of several limits of a kind, the one that leaves least is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from transom.access.quotas import Standing

_KINDS = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}
"""Budgets that OpenAI's names are about."""


def headers_of(standings: Sequence[Standing]) -> dict[str, str]:
    """The headers of a reply; none where nothing that comes back with time is limited."""
    tightest = _tightest(standings)
    found = dict(_openai(tightest.items()))
    if tightest:
        found["ratelimit-policy"] = ", ".join(_policy(budget, each) for budget, each in tightest.items())
        found["ratelimit"] = ", ".join(_state(budget, each) for budget, each in tightest.items())
    return found


def _tightest(standings: Iterable[Standing]) -> dict[str, Standing]:
    """By budget, of those that come back with time."""
    found: dict[str, Standing] = {}
    for standing in standings:
        if standing.reset is not None:
            known = found.setdefault(standing.limit.budget, standing)
            if (standing.remaining, standing.limit.limit) < (known.remaining, known.limit.limit):
                found[standing.limit.budget] = standing
    return found


def _openai(tightest: Iterable[tuple[str, Standing]]) -> Iterator[tuple[str, str]]:
    for budget, standing in tightest:
        if budget in _KINDS:
            kind = _KINDS[budget]
            yield f"x-ratelimit-limit-{kind}", str(standing.limit.limit)
            yield f"x-ratelimit-remaining-{kind}", str(standing.remaining)
            yield f"x-ratelimit-reset-{kind}", f"{standing.reset}s"


def _policy(budget: str, standing: Standing) -> str:
    period = standing.limit.of.period_us
    return f'"{budget}";q={standing.limit.limit};w={(period or 0) // 1_000_000}'


def _state(budget: str, standing: Standing) -> str:
    return f'"{budget}";r={standing.remaining};t={standing.reset}'
