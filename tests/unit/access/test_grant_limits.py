"""From grant and programme to the limits that a request stands under."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from programme_stage import PROGRAMME

from transom.access.programme.grants import Grant, GrantChange, Limit, in_force, limits_for
from transom.access.programme.programme import parse
from transom.schema.budgets import Quotas

START = datetime(2026, 1, 1, tzinfo=UTC)


def make(grant_id="grt_1", **more):
    fields = {
        "id": grant_id,
        "project_id": "prj_1",
        "application_id": "app_1",
        "tier": "open",
        "rank": 0,
        "programme": "sha256:0",
        "scopes": frozenset({"model:sample"}),
        "models": "all",
        "given": Quotas(tokens_total=100, requests_per_minute=6),
        "holdback_percent": 0,
        "embargo_months": 0,
        "starts": START,
        "planned_end": START + timedelta(days=90),
        "created": START,
    }
    return Grant(**fields | more)


def change(kind, days, **more):
    return GrantChange(at=START + timedelta(days=days), actor="per_x", kind=kind, **more)


def limits(grant, model="small"):
    return limits_for(grant, parse(PROGRAMME), key="k", person="per_a", project="prj_1", model=model)


def test_every_account_has_its_limits_in_the_one_order():
    assert limits(make()) == [
        Limit("key:k", "requests_in_flight", 2, ""),
        Limit("person:per_a", "requests_in_flight", 4, ""),
        Limit("project:prj_1", "requests_per_minute", 6, ""),
        Limit("project:prj_1", "tokens_total", 100, "grt_1"),
        Limit("tier:open", "tokens_per_minute", 5000, ""),
        Limit("model:small", "requests_in_flight", 9, ""),
    ]


def test_a_tier_or_model_without_a_pool_has_no_limits():
    accounts = {limit.account for limit in limits(make(tier="research"), model="other")}
    assert accounts == {"key:k", "person:per_a", "project:prj_1"}


def test_totals_count_anew_for_each_grant_and_nothing_else_does():
    first, second = limits(make("grt_1")), limits(make("grt_2"))
    assert [(a.budget, a.period, b.period) for a, b in zip(first, second, strict=True) if a != b] == [
        ("tokens_total", "grt_1", "grt_2")
    ]


def test_what_is_held_back_cannot_be_used():
    held = make(holdback_percent=50)
    assert Limit("project:prj_1", "tokens_total", 50, "grt_1") in limits(held)
    released = make(holdback_percent=50, changes=(change("progress", 5),))
    assert Limit("project:prj_1", "tokens_total", 100, "grt_1") in limits(released)


def test_of_several_grants_the_order_of_rows_does_not_matter():
    several = [
        make("grt_a", rank=0),
        make("grt_b", rank=1, starts=START + timedelta(days=1)),
        make("grt_c", rank=1, starts=START + timedelta(days=2)),
        make("grt_d", rank=2, changes=(change("end", 3),)),
        make("grt_e", rank=2, starts=START + timedelta(days=50)),
    ]
    for days, expected in ((0, "d"), (3, "c"), (50, "e"), (90, None)):
        now = START + timedelta(days=days)
        found = {getattr(in_force(order, now), "id", None) for order in permutations(several)}
        assert found == {f"grt_{expected}" if expected else None}


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 800)), max_size=6), st.none() | st.integers(0, 400)
)
def test_renewals_only_extend_and_an_end_is_final(renewals, ended):
    made = [change("renewal", at, ends=START + timedelta(days=until)) for at, until in renewals]
    made += [] if ended is None else [change("end", ended)]
    grant = make(changes=tuple(made))
    latest = START + timedelta(days=max([90, *(until for _, until in renewals)]))
    expected = latest if ended is None else min(latest, START + timedelta(days=ended))
    assert grant.ends == expected
    assert grant.state(expected) in {"ended", "expired"}
    assert in_force([grant], expected - timedelta(microseconds=1)) is (grant if expected > START else None)
