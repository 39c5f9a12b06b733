"""What becomes of a grant: it is added to, renewed, held back until a report, and ended."""

from datetime import UTC, date, datetime, timedelta

import pytest
from programme_stage import ADA, EVE, OLI, START, refused_param

from transom.errors import Conflict, Forbidden, InvalidRequest, NotFound
from transom.schema.budgets import Quotas


class TestSupplement:
    def test_it_adds_and_what_is_used_is_kept(self, stage):
        granted = stage.approved(tier="open")
        more = stage.submitted(
            tier="open", kind="supplement", grant=granted.grant, quotas=Quotas(tokens_total=400)
        )
        assert (more.state, more.grant) == ("approved", granted.grant)
        grant = stage.grant()
        assert grant.id == granted.grant, "its counters go on"
        assert dict(grant.quotas.amounts()) == {"requests_per_minute": 60, "tokens_total": 1400}
        assert grant.ends == START + timedelta(days=90)

    def test_all_supplements_together_stay_within_the_tier(self, stage):
        granted = stage.approved(tier="open")
        ask = {"tier": "open", "kind": "supplement", "grant": granted.grant}
        stage.submitted(**ask, quotas=Quotas(tokens_total=400))
        draft = stage.draft(**ask, quotas=Quotas(tokens_total=101))
        assert refused_param(stage.submit, draft) == "quotas.tokens_total"
        assert stage.submit(stage.edit(draft, quotas=Quotas(tokens_total=100))).state == "approved"
        assert stage.grant().quotas.tokens_total == 1500

    @pytest.mark.parametrize(
        ("asked", "param"),
        [
            ({}, "quotas"),
            ({"quotas": Quotas(tokens_total=0)}, "quotas"),
            ({"quotas": Quotas(tokens_per_day=5)}, "quotas.tokens_per_day"),
            ({"quotas": Quotas(tokens_total=1), "ends": date(2026, 9, 1)}, "ends"),
        ],
        ids=str,
    )
    def test_it_is_only_about_limited_quotas(self, stage, asked, param):
        granted = stage.approved(tier="open")
        draft = stage.draft(tier="open", kind="supplement", grant=granted.grant, **asked)
        assert refused_param(stage.submit, draft) == param

    def test_a_reviewer_may_add_less(self, stage):
        granted = stage.approved(tier="extended")
        draft = stage.draft(
            tier="extended", kind="supplement", grant=granted.grant, quotas=Quotas(tokens_total=1000)
        )
        taken = stage.review(stage.submit(draft))
        stage.approve(taken, quotas=Quotas(tokens_total=10), reason="try first")
        assert stage.grant().granted.tokens_total == 100_011

    def test_an_expired_grant_has_none(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=90)
        draft = stage.draft(
            tier="open", kind="supplement", grant=granted.grant, quotas=Quotas(tokens_total=1)
        )
        with pytest.raises(Conflict, match="renew it first"):
            stage.submit(draft)


class TestRenewal:
    def test_it_extends_the_dates_and_nothing_else(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=60)
        renewed = stage.submitted(tier="open", kind="renewal", grant=granted.grant)
        grant = stage.grant()
        assert (renewed.grant, grant.id) == (granted.grant, granted.grant)
        assert (grant.starts, grant.ends) == (START, START + timedelta(days=150))
        assert grant.quotas.tokens_total == 1000

    def test_it_cannot_be_heaped_up(self, stage):
        granted = stage.approved(tier="open")
        ask = {"tier": "open", "kind": "renewal", "grant": granted.grant}
        assert refused_param(stage.submit, stage.draft(**ask)) == "ends"
        stage.forward(days=10)
        stage.submitted(**ask)
        assert refused_param(stage.submit, stage.draft(**ask, ends=date(2026, 12, 31))) == "ends"
        assert stage.grant().ends == START + timedelta(days=100)

    def test_quotas_are_no_part_of_it(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=9)
        draft = stage.draft(tier="open", kind="renewal", grant=granted.grant, quotas=Quotas(tokens_total=1))
        assert refused_param(stage.submit, draft) == "quotas"

    def test_an_expired_grant_comes_back_and_an_ended_one_does_not(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=100)
        assert stage.grant() is None
        ask = {"tier": "open", "kind": "renewal", "grant": granted.grant}
        stage.submitted(**ask)
        assert stage.grant().id == granted.grant
        stage.end(granted.grant)
        stage.forward(days=1)
        with pytest.raises(Conflict, match="against the terms"):
            stage.submit(stage.draft(**ask))

    def test_a_declined_renewal_that_wins_its_appeal_renews(self, stage):
        from programme_stage import ROB

        granted = stage.approved(tier="extended")
        stage.forward(days=300)
        asked = stage.submitted(tier="extended", kind="renewal", grant=granted.grant)
        declined = stage.decline(stage.review(asked))
        appeal = stage.appeal(stage.show(declined))
        won = stage.approve(stage.review(appeal, ROB), ROB)
        assert (won.intent, won.grant) == ("renewal", granted.grant)
        assert stage.grant().ends == stage.now + timedelta(days=365)


@pytest.mark.parametrize(
    ("more", "error", "param"),
    [
        ({"kind": "renewal"}, InvalidRequest, "grant"),
        ({"kind": "supplement", "grant": "grt_0000000000000000000000"}, NotFound, "grant"),
        ({"kind": "new", "grant": "its own"}, InvalidRequest, "grant"),
        ({"kind": "renewal", "grant": "its own", "tier": "open"}, InvalidRequest, "tier"),
        ({"kind": "renewal", "grant": "another's"}, NotFound, "grant"),
    ],
    ids=str,
)
def test_kind_grant_and_tier_must_fit_together(stage, more, error, param):
    other = stage.add_project("prj_other", EVE)
    theirs = stage.approve(stage.review(stage.submit(stage.draft(EVE, project=other), EVE))).grant
    mine = stage.approved().grant
    named = {"its own": mine, "another's": theirs}
    if "grant" in more:
        more = more | {"grant": named.get(more["grant"], more["grant"])}
    with pytest.raises(error) as refused:
        stage.draft(**more)
    assert refused.value.param == param


class TestHoldback:
    def test_half_of_the_totals_of_a_large_grant_waits_for_a_report(self, stage):
        granted = stage.approved(tier="extended")
        grant = stage.grant()
        assert (grant.granted.tokens_total, grant.quotas.tokens_total) == (100_001, 50_000)
        assert grant.quotas.requests_per_minute == 7
        told = stage.progress(granted.grant)
        assert (told.holdback_percent, told.quotas.tokens_total) == (0, 100_001)
        assert stage.grant().quotas.tokens_total == 100_001
        with pytest.raises(Conflict, match="Nothing"):
            stage.progress(granted.grant)

    def test_a_small_grant_is_whole_from_the_beginning(self, stage):
        granted = stage.approved(tier="extended", quotas=Quotas(tokens_total=49_999))
        assert stage.grant().quotas.tokens_total == 49_999
        with pytest.raises(Conflict, match="Nothing"):
            stage.progress(granted.grant)

    def test_a_supplement_is_whole_at_once(self, stage):
        granted = stage.approved(tier="extended")
        ask = {"tier": "extended", "kind": "supplement", "grant": granted.grant}
        stage.approved(**ask, quotas=Quotas(tokens_total=10))
        assert stage.grant().quotas.tokens_total == 50_010

    def test_only_whoever_manages_the_project_reports_and_only_while_it_is_in_force(self, stage):
        from programme_stage import BEN

        granted = stage.approved(tier="extended")
        for who, error in ((BEN, Forbidden), (OLI, Forbidden), (EVE, NotFound)):
            with pytest.raises(error):
                stage.progress(granted.grant, who)
        stage.forward(days=366)
        with pytest.raises(Conflict, match="expired"):
            stage.progress(granted.grant)


class TestEnd:
    def test_the_operator_ends_a_grant_with_a_reason_and_its_people_are_told(self, stage):
        granted = stage.approved(tier="open")
        stage.forward(days=3)
        ended = stage.end(granted.grant)
        assert stage.grant() is None
        assert stage.grant(now=stage.now - timedelta(microseconds=1)) is not None
        assert (ended.state, ended.ends) == ("ended", "2026-02-03T12:00:00Z")
        assert ended.changes[-1].reason == "against the terms"
        told = [recipient for recipient, subject in stage.mails() if "was ended" in subject]
        assert told == ["per_ada", "per_ben"]
        entry = stage.trail()[-1]
        assert (entry.action, entry.actor, entry.reason) == ("grant.end", "per_oli", "against the terms")
        assert entry.project_id == stage.project

    def test_it_is_ended_once(self, stage):
        granted = stage.approved(tier="open")
        stage.end(granted.grant)
        with pytest.raises(Conflict, match="over since"):
            stage.end(granted.grant)

    def test_its_own_people_may_give_it_up_and_nobody_else(self, stage):
        from programme_stage import BEN, RIA

        granted = stage.approved(tier="open")
        for who, error in ((BEN, Forbidden), (RIA, NotFound), (EVE, NotFound)):
            with pytest.raises(error):
                stage.end(granted.grant, who)
        assert stage.end(granted.grant, ADA, "done").state == "ended"

    def test_a_grant_to_come_can_be_ended_too(self, stage):
        granted = stage.approved(starts=date(2026, 5, 1))
        stage.end(granted.grant)
        stage.now = datetime(2026, 6, 1, tzinfo=UTC)
        assert stage.grant() is None


def test_a_grant_is_shown_to_its_project_and_the_operator(stage):
    from programme_stage import BEN, RIA

    granted = stage.approved(tier="open")
    assert stage.shown_grant(granted.grant, BEN).project == stage.project
    assert stage.shown_grant(granted.grant, OLI).id == granted.grant
    for who in (EVE, RIA):
        with pytest.raises(NotFound):
            stage.shown_grant(granted.grant, who)
