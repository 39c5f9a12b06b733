"""What is granted: never more than was asked, nor than the tier allows; and less with a reason."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programme_stage import ADA, START, refused_param
from sqlalchemy import select

from transom.errors import Conflict
from transom.schema.budgets import BUDGETS, TOTALS, Quotas
from transom.storage.tables import application_events, grants

amounts = st.dictionaries(st.sampled_from(BUDGETS), st.integers(0, 2**40))


def test_an_instant_tier_is_granted_by_the_server_itself_on_submission(stage):
    application = stage.submitted(tier="open")
    assert application.state == "approved"
    assert [(event.action, event.actor, event.state) for event in application.events] == [
        ("create", ADA.person_id, "draft"),
        ("submit", ADA.person_id, "submitted"),
        ("approve", "system", "approved"),
    ]
    grant = stage.grant()
    assert (grant.id, grant.tier, grant.models) == (application.grant, "open", "all")
    assert grant.scopes == {"model:sample", "model:logprobs"}
    assert dict(grant.quotas.amounts()) == {"requests_per_minute": 60, "tokens_total": 1000}
    assert (grant.starts, grant.ends) == (START, START + timedelta(days=90))
    assert grant.programme == stage.desk.programme.digest


def test_a_grant_is_in_force_from_its_first_moment_to_before_its_last(stage):
    application = stage.approved(starts=date(2026, 3, 1), ends=date(2026, 3, 31))
    starts, ends = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    step = timedelta(microseconds=1)
    assert [stage.grant(now=now) is not None for now in (starts - step, starts, ends - step, ends)] == [
        False,
        True,
        True,
        False,
    ]
    assert stage.shown_grant(application.grant).state == "to_come"
    stage.now = ends
    assert stage.shown_grant(application.grant).state == "expired"


def test_what_is_asked_for_is_granted_and_the_rest_is_the_tiers(stage):
    stage.approved(scopes=["model:bias"], models=["large"], quotas=Quotas(tokens_total=77))
    grant = stage.grant()
    assert (grant.scopes, grant.models) == ({"model:bias"}, ["large"])
    assert (grant.opens("large"), grant.opens("small")) == (True, False)
    assert dict(grant.quotas.amounts()) == {
        "requests_per_minute": 100,
        "tokens_total": 77,
        "released_rank": 100,
    }


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"scopes": ["model:distributions"]}, "scopes"),
        ({"scopes": ["model:nonsense"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"models": ["other"]}, "models"),
        ({"models": []}, "models"),
        ({"quotas": Quotas(tokens_total=10_001)}, "quotas.tokens_total"),
        ({"quotas": Quotas(released_rank=101, tokens_total=1)}, "quotas.released_rank"),
        ({"ends": date(2027, 2, 1)}, "ends"),
        ({"ends": date(2026, 1, 30)}, "ends"),
        ({"ends": date(9999, 12, 31)}, "ends"),
        ({"starts": date(2027, 3, 1)}, "starts"),
        ({"starts": date(9999, 12, 31)}, "starts"),
        ({"starts": date(2026, 5, 1), "ends": date(2026, 4, 1)}, "ends"),
    ],
    ids=str,
)
def test_more_than_the_tier_allows_is_refused_on_submission_by_its_field(stage, asked, param):
    draft = stage.draft(**asked)
    assert refused_param(stage.submit, draft) == param
    assert stage.show(draft).state == "draft"
    assert len(stage.show(draft).events) == 1


def test_a_model_that_is_not_served_cannot_be_asked_for(stage):
    assert refused_param(stage.submit, stage.draft(tier="open", models=["huge"])) == "models"
    assert stage.submitted(tier="open", models=["other"]).state == "approved"


def test_a_budget_without_limit_in_the_tier_may_be_limited_but_not_the_other_way_round(stage):
    stage.approved(tier="open", quotas=Quotas(tokens_per_day=5))
    assert stage.grant().quotas.tokens_per_day == 5
    assert stage.grant().quotas.tokens_total == 1000


class TestLess:
    def test_it_needs_a_reason(self, stage):
        taken = stage.review(stage.submitted())
        assert refused_param(stage.approve, taken, quotas=Quotas(tokens_total=5)) == "reason"
        assert refused_param(stage.approve, taken, scopes=["model:sample"], reason=" ") == "reason"
        approved = stage.approve(
            taken,
            quotas=Quotas(tokens_total=5),
            scopes=["model:sample"],
            models=["small"],
            ends=date(2026, 6, 30),
            reason="a pilot first",
        )
        grant = stage.grant()
        assert (grant.scopes, grant.models, grant.quotas.tokens_total) == ({"model:sample"}, ["small"], 5)
        assert grant.ends == datetime(2026, 7, 1, tzinfo=UTC)
        assert grant.quotas.requests_per_minute == 100
        said = approved.events[-1]
        assert (said.reason, said.details["as_asked"]) == ("a pilot first", False)
        assert said.details["granted"]["quotas"]["tokens_total"] == 5

    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"scopes": ["model:sample", "model:logprobs"]}, "scopes"),
            ({"scopes": []}, "scopes"),
            ({"models": ["large", "small"]}, "models"),
            ({"models": []}, "models"),
            ({"quotas": Quotas(tokens_total=51)}, "quotas.tokens_total"),
            ({"ends": date(2026, 7, 1)}, "ends"),
            ({"ends": date(2026, 1, 1)}, "ends"),
        ],
        ids=str,
    )
    def test_more_than_was_asked_is_refused_even_where_the_tier_allows_it(self, stage, more, param):
        asked = {
            "scopes": ["model:sample"],
            "models": ["small"],
            "quotas": Quotas(tokens_total=50),
            "ends": date(2026, 6, 30),
        }
        taken = stage.review(stage.submitted(**asked))
        assert refused_param(stage.approve, taken, reason="generous", **more) == param
        assert stage.grant() is None
        assert stage.show(taken).state == "in_review"

    def test_naming_what_was_asked_is_not_less(self, stage):
        taken = stage.review(stage.submitted())
        same = {"scopes": ["model:bias", "model:logprobs", "model:sample"], "models": ["small", "large"]}
        assert stage.approve(taken, **same).events[-1].details["as_asked"]


class TestSecondGrant:
    def test_of_the_same_tier_is_refused_while_the_first_lasts(self, stage):
        first = stage.approved(tier="open")
        draft = stage.draft(tier="open")
        with pytest.raises(Conflict, match=first.grant):
            stage.submit(draft)
        stage.forward(days=90)
        assert stage.submit(draft).state == "approved"

    def test_two_applications_in_review_do_not_make_two_grants(self, stage):
        one, other = stage.review(stage.submitted()), stage.review(stage.submitted())
        stage.approve(one)
        with pytest.raises(Conflict, match="renewal or a supplement"):
            stage.approve(other)
        assert stage.show(other).state == "in_review"
        assert len(stage.look(select(grants.c.id))) == 1

    def test_the_highest_tier_counts_whenever_it_was_given(self, stage):
        high = stage.approved(tier="extended", ends=date(2026, 3, 1))
        stage.forward(days=1)
        low = stage.approved(tier="open")
        assert stage.grant().id == high.grant
        stage.forward(days=40)
        assert stage.grant().id == low.grant
        stage.forward(days=60)
        assert stage.grant() is None

    def test_an_ended_grant_of_an_instant_tier_is_not_had_again_at_once(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=1)
        stage.end(granted.grant)
        with pytest.raises(Conflict, match="against the terms"):
            stage.submit(stage.draft(tier="open"))
        stage.forward(days=89)
        assert stage.approved(tier="open").grant != granted.grant

    def test_an_ended_grant_of_a_reviewed_tier_may_be_asked_for_again(self, stage):
        stage.end(stage.approved().grant)
        stage.forward(seconds=1)
        assert stage.approved().state == "approved"


def test_each_decision_and_its_grant_are_in_the_trail_of_the_project(stage):
    approved = stage.approved()
    acts = [(row.action, row.actor, row.subject) for row in stage.trail() if row.project_id == stage.project]
    assert acts == [
        ("application.create", "per_ada", approved.id),
        ("application.submit", "per_ada", approved.id),
        ("application.start_review", "per_ria", approved.id),
        ("grant.create", "per_ria", approved.grant),
        ("application.approve", "per_ria", approved.id),
    ]


def test_an_event_is_kept_as_canonical_json(stage):
    stage.approved()
    kept = [row.details for row in stage.look(select(application_events.c.details))]
    assert all(json.dumps(json.loads(text), separators=(",", ":"), sort_keys=True) == text for text in kept)


class TestQuotas:
    @given(amounts, amounts)
    def test_sums_go_budget_by_budget_and_no_limit_stays_none(self, mine, more):
        total = dict(Quotas(**mine).plus(Quotas(**more)).amounts())
        assert total == {budget: amount + more.get(budget, 0) for budget, amount in mine.items()}

    @given(amounts, amounts)
    def test_what_is_beyond_is_exactly_what_exceeds_a_limit(self, mine, most):
        beyond = Quotas(**mine).beyond(Quotas(**most))
        assert set(beyond) == {
            budget for budget, limit in most.items() if budget not in mine or mine[budget] > limit
        }

    @given(amounts, st.integers(0, 90))
    def test_holding_back_never_gives_more_and_takes_of_totals_only(self, mine, percent):
        left = dict(Quotas(**mine).held_back(percent).amounts())
        assert left.keys() == mine.keys()
        for budget, amount in mine.items():
            if budget not in TOTALS:
                assert left[budget] == amount
            else:
                assert 0 <= amount * (100 - percent) - left[budget] * 100 < 100

    @given(amounts, amounts)
    def test_what_is_filled_from_within_a_limit_is_within_it(self, mine, most):
        asked = {budget: min(amount, most.get(budget, amount)) for budget, amount in mine.items()}
        assert Quotas(**asked).filled(Quotas(**most)).beyond(Quotas(**most)) == []
