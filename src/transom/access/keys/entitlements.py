"""What a caller may do, and how much of it: the key, the grant and the programme taken together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection

from transom.access.keys.callers import CACHE_ENTRIES, CACHE_SECONDS, Caller
from transom.access.programme.grants import Grant, grant_for, limits_for
from transom.access.quotas import Charged, Limit
from transom.errors import Forbidden, MissingScope
from transom.schema.budgets import Quotas
from transom.schema.programme import MATRIX_PERCENT, Programme
from transom.schema.scopes import ALL_SCOPES, SCOPES
from transom.storage.database import Database

K = TypeVar("K")
V = TypeVar("V")

ANONYMOUS_TIER = "anonymous"


class Allowance(NamedTuple):
    """How much a caller may ask of a model."""

    charged: Charged
    limits: tuple[Limit, ...]
    returning: tuple[Limit, ...]
    """Those that come back with time."""


class _Believed(NamedTuple):
    """What was read of a project's grant."""

    grant: Grant | None
    until: float
    """Monotonic seconds."""
    since: datetime | None
    ends: datetime | None
    """Between these the grant is in force; None where there is none."""

    def holds(self, ticks: float, now: datetime) -> bool:
        """Whether it may still be believed. A grant that has ended is not, for as much as a second."""
        if self.since is not None and self.ends is not None and not self.since <= now < self.ends:
            return False
        return ticks < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What one caller may do at this moment."""

    caller: Caller
    scopes: frozenset[str]
    programme: Programme
    grant: Grant | None = None
    _worked_out: dict[tuple[str, int], Allowance] = field(default_factory=dict, repr=False, compare=False)

    def require(self, scope: str) -> None:
        """Pass who has a scope.

        Raises:
            MissingScope: the message says which, what it allows, and how to ask for it.
        """
        if scope not in self.scopes:
            raise MissingScope(
                f"This needs the scope {scope}: {SCOPES[scope].allows} {self._remedy(scope)}", scope=scope
            )

    def require_model(self, model: str) -> None:
        """Pass who may ask this model.

        Raises:
            Forbidden: the grant does not open it.
        """
        if self.grant is not None and not self.grant.opens(model):
            raise Forbidden(
                f"The project's grant does not open the model {model!r}; apply for it with a supplement.",
                param="model",
                code="model_not_granted",
            )

    @property
    def matrix_percent(self) -> int:
        """How much of any one weight matrix the caller may be told of, in hundredths; 100 is no limit."""
        if self.caller.is_operators:
            return 100
        tier = self.programme.tiers.get(self._tier or "")
        return MATRIX_PERCENT if tier is None else tier.matrix_percent

    def allowance(self, model: str, hidden_size: int) -> Allowance:
        """What a request to a model is charged to and must keep to; the same one each time.

        Args:
            model: its name.
            hidden_size: see `limits`.
        """
        found = self._worked_out.get((model, hidden_size))
        if found is None:
            limits = tuple(self.limits(model, hidden_size))
            returning = tuple(limit for limit in limits if limit.of.period_us is not None)
            found = self._worked_out[model, hidden_size] = Allowance(self.charged(model), limits, returning)
        return found

    def charged(self, model: str) -> Charged:
        """Whom a request to a model is charged to."""
        return Charged(
            key_id=self.caller.key_id,
            person_id=self.caller.person_id,
            project_id=self.caller.project_id,
            grant_id=None if self.grant is None else self.grant.id,
            tier=self._tier,
            model=model,
        )

    def limits(self, model: str, hidden_size: int) -> list[Limit]:
        """Every limit that a request to a model stands under.

        Args:
            model: its name.
            hidden_size: so many independent vectors would give its output matrix away. Unless the grant says
                otherwise, less than that is released, to a project and to a person over all their projects.
        """
        return [*self._given(model), *self._rank(model, hidden_size)]

    def _given(self, model: str) -> Iterator[Limit]:
        caller, grant = self.caller, self.grant
        for budget, limit in caller.key_quotas.items():
            yield Limit(f"key:{caller.key_id}", budget, limit)
        if caller.anonymous:
            for budget, limit in self._quotas.amounts():
                if budget != "released_rank":
                    yield Limit(f"project:{caller.project_id}", budget, limit)
        if grant is None or caller.key_id is None or caller.person_id is None:
            return
        for given in limits_for(
            grant,
            self.programme,
            key=caller.key_id,
            person=caller.person_id,
            project=caller.project_id,
            model=model,
        ):
            # What a grant gives in total is counted for that grant, and not for the ones before it.
            account = f"grant:{given.period}" if given.period else given.account
            if given.budget != "released_rank":
                yield Limit(account, given.budget, given.limit)

    def _rank(self, model: str, hidden_size: int) -> Iterator[Limit]:
        if self.caller.is_operators:
            return
        quotas = self._quotas
        most = hidden_size - 1 if quotas.released_rank is None else quotas.released_rank
        yield Limit(f"project_model:{self.caller.project_id}:{model}", "released_rank", most)
        if self.caller.person_id is not None:
            most = max(most, hidden_size - 1)
            yield Limit(f"person_model:{self.caller.person_id}:{model}", "released_rank", most)

    @property
    def _quotas(self) -> Quotas:
        """What the project has."""
        if self.grant is not None:
            return self.grant.quotas
        return self.programme.anonymous.quotas if self.caller.anonymous else Quotas()

    @property
    def _tier(self) -> str | None:
        if self.caller.anonymous:
            return ANONYMOUS_TIER
        return None if self.grant is None else self.grant.tier

    def _remedy(self, scope: str) -> str:
        if self.caller.scopes is not None and scope not in self.caller.scopes and self._grants(scope):
            return "The grant has it, and this key was made without it: make another key."
        if self.caller.anonymous:
            return "Sign in, apply for a grant, and send a key."
        tiers = [name for name, tier in self.programme.tiers.items() if scope in tier.scopes]
        if not tiers:
            return "No tier of this programme has it: ask the operator."
        what = "grants" if self.grant is None else f"grants beyond {self.grant.tier}"
        how = "`transom apply`, or POST /v1/applications"
        return f"Apply for it ({how}): {what} of the tier {tiers[0]} can have it."

    def _grants(self, scope: str) -> bool:
        return self.grant is not None and scope in self.grant.scopes


class Entitlements:
    """What callers may do. Belongs to one event loop; what it read it believes for `CACHE_SECONDS`.

    Args:
        database: where grants are.
        programme: what is offered.
        clock: the time, in UTC; decides which grant is in force.
        ticks: monotonic seconds; decide how old a look at the database is.
    """

    def __init__(
        self,
        database: Database,
        programme: Programme,
        *,
        clock: Callable[[], datetime],
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._programme = programme
        self._clock = clock
        self._ticks = ticks
        self._grants: dict[str, _Believed] = {}
        self._entitled: dict[int, Entitlement] = {}

    async def of(self, caller: Caller) -> Entitlement:
        """What a caller may do now."""
        if caller.is_operators:
            return self._entitlement(caller, ALL_SCOPES, None)
        if caller.anonymous:
            return self._entitlement(caller, frozenset(self._programme.anonymous.scopes), None)
        grant = await self._grant(caller.project_id)
        return self._entitlement(caller, frozenset() if grant is None else grant.scopes, grant)

    def forget(self) -> None:
        """Believe nothing that was read before: a grant was changed here."""
        self._grants.clear()
        self._entitled.clear()

    def _entitlement(self, caller: Caller, scopes: frozenset[str], grant: Grant | None) -> Entitlement:
        # The same caller and the same grant are the same objects for as long as they are believed.
        known = self._entitled.get(id(caller))
        if known is not None and known.caller is caller and known.grant is grant:
            return known
        narrowed = scopes if caller.scopes is None else scopes & caller.scopes
        made = Entitlement(caller=caller, scopes=narrowed, programme=self._programme, grant=grant)
        _keep(self._entitled, id(caller), made)
        return made

    async def _grant(self, project_id: str) -> Grant | None:
        believed, now = self._grants.get(project_id), self._clock()
        if believed is None or not believed.holds(self._ticks(), now):
            until = self._ticks() + CACHE_SECONDS
            grant = await self._database.read(lambda connection: grant_for(connection, project_id, now))
            span = (None, None) if grant is None else (grant.starts, grant.ends)
            believed = _Believed(grant, until, *span)
            _keep(self._grants, project_id, believed)
        return believed.grant


def _keep(kept: dict[K, V], name: K, value: V) -> None:
    if len(kept) >= CACHE_ENTRIES:
        kept.clear()  # all of it is a second old at most, or nobody's
    kept[name] = value


def granted_scopes(connection: Connection, project_id: str, now: datetime) -> frozenset[str]:
    """The scopes that a project's grant allows at a moment; none where it has no grant."""
    grant = grant_for(connection, project_id, now)
    return frozenset() if grant is None else grant.scopes
