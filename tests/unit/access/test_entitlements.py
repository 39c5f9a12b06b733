"""What callers may do is believed for a second, worked out once in it, and never kept for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from transom.access.keys import entitlements
from transom.access.keys.callers import Caller
from transom.access.keys.entitlements import Entitlements
from transom.access.programme.grants import Grant
from transom.schema.budgets import Quotas
from transom.schema.programme import Programme, Tier

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
CALLER = Caller("prj_1", "k1", "per_1")
PROGRAMME = Programme(
    name="Test",
    contact="desk",
    terms="none",
    tiers={"open": Tier(title="Open", review=False, scopes=["model:sample"], duration_days=90)},
)
GRANT = Grant(
    id="grt_1",
    project_id="prj_1",
    application_id="app_1",
    tier="open",
    rank=0,
    programme="sha256:0",
    scopes=frozenset({"model:sample"}),
    models="all",
    given=Quotas(requests_per_minute=5, tokens_total=100),
    holdback_percent=0,
    embargo_months=0,
    starts=NOON - timedelta(days=1),
    planned_end=NOON + timedelta(days=1),
    created=NOON - timedelta(days=1),
)


class Shelf:
    """A database that holds one grant, and counts who looks."""

    def __init__(self, grant):
        self.grant = grant
        self.looks = 0

    async def read(self, _fn):
        self.looks += 1
        return self.grant


class Stage:
    def __init__(self, grant=GRANT):
        self.shelf, self.now, self.seconds = Shelf(grant), NOON, 100.0
        self.entitlements = Entitlements(
            self.shelf, PROGRAMME, clock=lambda: self.now, ticks=lambda: self.seconds
        )

    def of(self, caller=CALLER):
        return asyncio.run(self.entitlements.of(caller))


@pytest.fixture
def stage():
    return Stage()


def test_a_grant_that_has_ended_is_not_believed_for_another_second(stage):
    stage.of()
    stage.now = GRANT.ends
    stage.shelf.grant = None
    assert stage.of().scopes == frozenset()


def test_a_grant_that_others_changed_is_known_within_a_second(stage):
    assert stage.of().grant is GRANT
    stage.shelf.grant = replace(GRANT, scopes=frozenset())
    assert stage.of().scopes == {"model:sample"}
    stage.seconds += entitlements.CACHE_SECONDS
    assert stage.of().scopes == frozenset()
    assert stage.shelf.looks == 2


def test_what_was_changed_here_is_known_at_once(stage):
    stage.of()
    stage.shelf.grant = None
    stage.entitlements.forget()
    assert stage.of().grant is None


def test_a_grant_is_looked_at_again_before_it_begins(stage):
    stage.of()
    stage.now = GRANT.starts - timedelta(seconds=1)
    stage.of()
    assert stage.shelf.looks == 2


def test_what_follows_from_it_is_worked_out_once(stage):
    first = stage.of().allowance("tiny", 64)
    assert stage.of().allowance("tiny", 64) is first
    assert stage.of().allowance("other", 64) is not first
    assert {limit.budget for limit in first.returning} == {"requests_per_minute"}
    assert set(first.returning) < set(first.limits)


def test_a_key_of_other_scopes_in_the_same_project_gets_what_is_its_own(stage):
    narrow = Caller(
        "prj_1", "k2", "per_1", scopes=frozenset({"records:read"}), key_quotas={"tokens_total": 1}
    )
    assert stage.of().scopes == {"model:sample"}
    assert stage.of(narrow).scopes == frozenset()
    accounts = {limit.account for limit in stage.of(narrow).allowance("tiny", 64).limits}
    assert "key:k2" in accounts
    assert "key:k2" not in {limit.account for limit in stage.of().allowance("tiny", 64).limits}


def test_a_caller_who_was_verified_again_is_not_taken_for_the_one_before(stage):
    stage.of()
    again = replace(CALLER, scopes=frozenset())
    assert stage.of(again).scopes == frozenset()


def test_no_more_is_remembered_than_there_is_room_for(stage, monkeypatch):
    monkeypatch.setattr(entitlements, "CACHE_ENTRIES", 3)
    for number in range(10):
        stage.of(Caller(f"prj_{number}", f"k{number}", "per_1"))
    assert len(stage.entitlements._grants) <= 3
    assert len(stage.entitlements._entitled) <= 3
