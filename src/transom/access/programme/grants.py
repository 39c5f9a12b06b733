"""Grants: what is in force is a pure function of rows and time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, insert, select, update

from transom.access.programme.views import moment
from transom.access.rights.trail import Entry, note
from transom.errors import NotFound
from transom.schema.budgets import TOTALS, Budget, Quotas
from transom.schema.canonical import CanonicalJson
from transom.schema.grants import ChangeKind, ChangeView, GrantState, GrantView
from transom.schema.programme import Models, Programme
from transom.storage.tables import grant_changes, grants


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantChange:
    """One thing that was done to a grant after it was made."""

    at: datetime
    actor: str
    kind: ChangeKind
    reason: str | None = None
    application_id: str | None = None
    quotas: Quotas | None = None
    ends: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A grant: as it was given, and all that was done to it since."""

    id: str
    project_id: str
    application_id: str
    tier: str
    rank: int
    """Where the tier stood in the programme when it was given."""
    programme: str
    scopes: frozenset[str]
    models: Models
    given: Quotas
    holdback_percent: int
    embargo_months: int
    starts: datetime
    planned_end: datetime
    created: datetime
    changes: tuple[GrantChange, ...] = ()

    @property
    def granted(self) -> Quotas:
        """What was given, and what supplements added."""
        total = self.given
        for more in self._of("supplement"):
            total = total.plus(more.quotas or Quotas())
        return total

    @property
    def quotas(self) -> Quotas:
        """What may be used: of what was given at first, a part of the totals may still be held back."""
        total = self.given.held_back(self.held_back)
        for more in self._of("supplement"):
            total = total.plus(more.quotas or Quotas())
        return total

    @property
    def held_back(self) -> int:
        """Hundredths of the totals that wait for a progress report."""
        return 0 if self._of("progress") else self.holdback_percent

    @property
    def scheduled_end(self) -> datetime:
        """Until when it lasts, unless somebody ends it; renewals only ever extend it."""
        renewed = (change.ends for change in self._of("renewal") if change.ends is not None)
        return max([self.planned_end, *renewed])

    @property
    def ended(self) -> GrantChange | None:
        """Who ended it early, and why."""
        return next(iter(self._of("end")), None)

    @property
    def ends(self) -> datetime:
        """The first moment at which it is no longer in force."""
        scheduled = self.scheduled_end
        return scheduled if self.ended is None else min(scheduled, self.ended.at)

    def state(self, now: datetime) -> GrantState:
        """What it is at a moment."""
        if self.ended is not None and now >= self.ended.at:
            return "ended"
        if now >= self.ends:
            return "expired"
        return "in_force" if now >= self.starts else "to_come"

    def opens(self, model: str) -> bool:
        """Whether it opens the model of that name."""
        return self.models == "all" or model in self.models

    def _of(self, kind: ChangeKind) -> list[GrantChange]:
        return [change for change in self.changes if change.kind == kind]


class Limit(NamedTuple):
    """What an account has of a budget."""

    account: str
    """`key:…`, `person:…`, `project:…`, `tier:…` or `model:…`."""
    budget: Budget
    limit: int
    period: str
    """What the totals are counted from zero for: a grant's id; empty for limits that no grant gave, and
    for budgets that come back with time."""


def in_force(every: Iterable[Grant], now: datetime) -> Grant | None:
    """Of a project's grants, the one that counts: of the highest tier, and of several such, the latest."""
    running = [grant for grant in every if grant.state(now) == "in_force"]
    return max(running, key=lambda grant: (grant.rank, grant.starts, grant.created, grant.id), default=None)


def grant_for(connection: Connection, project_id: str, now: datetime) -> Grant | None:
    """The grant of a project that is in force at `now`; None where none is."""
    return in_force(grants_of(connection, [project_id]), now)


def limits_for(  # one for each kind of account
    grant: Grant, programme: Programme, *, key: str, person: str, project: str, model: str
) -> list[Limit]:
    """Every limit that a request stands under, in the one order in which accounts are charged.

    Args:
        grant: what the project has.
        programme: says which limits are shared.
        key: the key's id.
        person: the id of whose key it is.
        project: the id of the project that the key is of.
        model: the model that is asked.
    """
    pools = programme.pools
    accounts = (
        (f"key:{key}", pools.key, ""),
        (f"person:{person}", pools.person, ""),
        (f"project:{project}", grant.quotas, grant.id),
        (f"tier:{grant.tier}", pools.tier.get(grant.tier, Quotas()), ""),
        (f"model:{model}", pools.model.get(model, Quotas()), ""),
    )
    return [
        Limit(account, budget, limit, period if budget in TOTALS else "")
        for account, quotas, period in accounts
        for budget, limit in quotas.amounts()
    ]


def add_grant(connection: Connection, grant: Grant, actor: str) -> None:
    """Keep a new grant, and note it in the trail."""
    row = {
        "id": grant.id,
        "project_id": grant.project_id,
        "application_id": grant.application_id,
        "tier": grant.tier,
        "rank": grant.rank,
        "programme": grant.programme,
        "scopes": json.dumps(sorted(grant.scopes)),
        "models": json.dumps(grant.models),
        "quotas": grant.given.model_dump_json(exclude_none=True),
        "holdback_percent": grant.holdback_percent,
        "embargo_months": grant.embargo_months,
        "starts": grant.starts,
        "ends": grant.planned_end,
        "created": grant.created,
        "changes": 0,
    }
    connection.execute(insert(grants).values(row))
    _note(connection, grant, "create", grant.created, actor, {"programme": grant.programme})


def change_grant(
    connection: Connection, grant: Grant, change: GrantChange, *, lasting_reason: str | None = None
) -> None:
    """Append a change to a grant that `locked_grant` gave, and note it in the trail.

    Args:
        connection: to the database.
        grant: as it was before.
        change: what is done to it.
        lasting_reason: what the trail says of why; None for the words of people of its project, which they
            can have forgotten, and the trail forgets nothing.
    """
    number = len(grant.changes) + 1
    connection.execute(update(grants).where(grants.c.id == grant.id).values(changes=number))
    row = {
        "grant_id": grant.id,
        "number": number,
        "at": change.at,
        "actor": change.actor,
        "kind": change.kind,
        "reason": change.reason,
        "application_id": change.application_id,
        "quotas": change.quotas.model_dump_json(exclude_none=True) if change.quotas is not None else None,
        "ends": change.ends,
    }
    connection.execute(insert(grant_changes).values(row))
    details: dict[str, CanonicalJson] = {"change": number}
    if change.application_id is not None:
        details["application"] = change.application_id
    _note(connection, grant, change.kind, change.at, change.actor, details, lasting_reason)


def _note(  # the parts of an entry
    connection: Connection,
    grant: Grant,
    what: str,
    at: datetime,
    actor: str,
    details: Mapping[str, CanonicalJson],
    reason: str | None = None,
) -> None:
    entry = Entry(
        at=at,
        actor=actor,
        action=f"grant.{what}",
        subject=grant.id,
        project_id=grant.project_id,
        reason=reason,
        details=dict(details),
    )
    note(connection, entry)


def load_grant(connection: Connection, grant_id: str) -> Grant:
    """The grant of that id.

    Raises:
        NotFound: there is none.
    """
    found = _read(connection, grants.c.id == grant_id)
    if not found:
        raise unknown_grant(grant_id)
    return found[0]


def locked_grant(connection: Connection, grant_id: str) -> Grant:
    """The same, and nobody else changes it until this transaction ends.

    Raises:
        NotFound: there is none.
    """
    connection.execute(select(grants.c.id).where(grants.c.id == grant_id).with_for_update())
    return load_grant(connection, grant_id)


def unknown_grant(grant_id: str) -> NotFound:
    """What somebody is told who may not know of a grant, or names one that is not there."""
    return NotFound(f"There is no grant {grant_id[:40]!r}.", param="grant")


def grants_of(connection: Connection, project_ids: Sequence[str]) -> list[Grant]:
    """Every grant of these projects, past ones too, newest first."""
    return _read(connection, grants.c.project_id.in_(project_ids))


def unended_grants(connection: Connection, now: datetime) -> list[Grant]:
    """Every grant that is in force or to come."""
    renewed = select(grant_changes.c.grant_id).where(grant_changes.c.ends > now)
    every = _read(connection, (grants.c.ends > now) | grants.c.id.in_(renewed))
    return [grant for grant in every if grant.state(now) in {"in_force", "to_come"}]


def _read(connection: Connection, condition: ColumnElement[bool]) -> list[Grant]:
    rows = connection.execute(
        select(grants).where(condition).order_by(grants.c.created.desc(), grants.c.id)
    ).mappings()
    found = [_grant(row) for row in rows]
    changes = select(grant_changes).where(grant_changes.c.grant_id.in_(select(grants.c.id).where(condition)))
    by_grant: dict[str, list[GrantChange]] = {}
    for row in connection.execute(changes.order_by(grant_changes.c.number)).mappings():
        by_grant.setdefault(row["grant_id"], []).append(_change(row))
    return [Grant(**grant, changes=tuple(by_grant.get(grant["id"], ()))) for grant in found]


def _grant(row: RowMapping) -> dict[str, Any]:
    fields = {name: row[name] for name in row if name not in {"quotas", "ends", "changes"}}
    return fields | {
        "scopes": frozenset(json.loads(row["scopes"])),
        "models": json.loads(row["models"]),
        "given": Quotas.model_validate_json(row["quotas"]),
        "planned_end": row["ends"],
    }


def _change(row: RowMapping) -> GrantChange:
    return GrantChange(
        at=row["at"],
        actor=row["actor"],
        kind=row["kind"],
        reason=row["reason"],
        application_id=row["application_id"],
        quotas=None if row["quotas"] is None else Quotas.model_validate_json(row["quotas"]),
        ends=row["ends"],
    )


def grant_view(grant: Grant, now: datetime) -> GrantView:
    """A grant as its project and the operator see it."""
    return GrantView(
        id=grant.id,
        project=grant.project_id,
        application=grant.application_id,
        tier=grant.tier,
        state=grant.state(now),
        scopes=sorted(grant.scopes),
        models=grant.models,
        granted=grant.granted,
        quotas=grant.quotas,
        holdback_percent=grant.held_back,
        starts=moment(grant.starts),
        ends=moment(grant.ends),
        embargo_months=grant.embargo_months,
        programme=grant.programme,
        changes=[_change_view(number, change) for number, change in enumerate(grant.changes, 1)],
    )


def _change_view(number: int, change: GrantChange) -> ChangeView:
    return ChangeView(
        number=number,
        at=moment(change.at),
        actor=change.actor,
        kind=change.kind,
        reason=change.reason,
        application=change.application_id,
        quotas=change.quotas,
        ends=None if change.ends is None else moment(change.ends),
    )
