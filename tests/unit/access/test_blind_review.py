"""In a blind review nothing that a reviewer is sent tells who asks."""

import pytest
from programme_stage import ADA, BEN, RIA, ROB

from transom.access.people.persons import PersonCaller

ZOE = PersonCaller("per_zoe")
INSTITUTION = "Institute of Ästhetics"


@pytest.fixture
def secrets(stage):
    """What would give the applicant away."""
    stage.add_project("prj_telltale", ZOE, BEN)
    return [
        ZOE.person_id,
        BEN.person_id,
        "prj_telltale",
        INSTITUTION,
        INSTITUTION.encode("ascii", "replace").decode(),
    ]


def leaks(secrets, *views):
    texts = [view.model_dump_json() for view in views]
    return [secret for secret in secrets for text in texts if secret in text]


def handed_in(stage, tier="research"):
    draft = stage.draft(ZOE, project="prj_telltale", tier=tier, institution=INSTITUTION)
    return stage.submit(draft, ZOE)


def test_no_view_of_a_reviewer_leaks_before_the_decision(stage, secrets):
    application = handed_in(stage)
    stage.comment(application, ZOE)
    stage.comment(application, BEN)
    stage.comment(application, ROB)
    seen = [stage.show(application, RIA), *stage.queue(RIA), stage.review(application)]
    asked = stage.ask_changes(seen[-1])
    edited = stage.edit(stage.show(asked, ZOE), ZOE, institution=INSTITUTION + "!", funding="a fund")
    seen += [asked, stage.show(edited, RIA)]
    again = stage.review(stage.submit(edited, ZOE))
    seen += [again, *stage.queue(RIA), *stage.queue(ROB)]
    assert leaks(secrets, *seen) == []
    assert all(view.blind for view in seen)
    said = [event.actor for event in seen[-3].events]
    assert said[:5] == ["applicant", "applicant", "applicant", "applicant", ROB.person_id]
    decided = stage.approve(stage.show(again, RIA))
    assert set(leaks(secrets[:4], decided)) == set(secrets[:4])


def test_its_own_people_see_all_of_it(stage, secrets):
    application = handed_in(stage)
    assert set(leaks(secrets[:1], stage.show(application, BEN))) == set(secrets[:1])
    assert stage.show(application, BEN).asked.institution == INSTITUTION


@pytest.mark.parametrize("end", ["withdraw", "lapse"])
def test_what_is_never_decided_is_never_shown(stage, secrets, end):
    from transom.access.programme.clockwork import tick

    application = handed_in(stage)
    if end == "withdraw":
        stage.withdraw(application, ZOE)
    else:
        stage.ask_changes(stage.review(application))
        stage.forward(days=31)
        assert stage.do(tick) >= 1
    assert stage.show(application, ZOE).state == {"withdraw": "withdrawn", "lapse": "expired"}[end]
    assert leaks(secrets, stage.show(application, RIA)) == []


def test_an_appeal_is_blind_again_and_so_is_what_it_appeals(stage, secrets):
    declined = stage.decline(stage.review(handed_in(stage)))
    assert leaks(secrets[:1], stage.show(declined, ROB)) == secrets[:1]
    appeal = stage.appeal(stage.show(declined, ZOE), ZOE)
    seen = [stage.show(appeal, ROB), stage.show(declined, ROB), stage.show(declined, RIA), *stage.queue(ROB)]
    assert leaks([*secrets, declined.id], seen[0]) == []
    assert leaks(secrets, *seen) == []
    decided = stage.decline(stage.review(appeal, ROB), ROB)
    assert leaks(secrets[:1], decided, stage.show(declined, ROB)) == secrets[:1] * 2


def test_a_renewal_does_not_name_the_grant_to_its_reviewers(stage, secrets):
    granted = stage.approve(stage.review(handed_in(stage)))
    stage.forward(days=100)
    draft = stage.draft(ZOE, project="prj_telltale", kind="renewal", grant=granted.grant)
    renewal = stage.submit(draft, ZOE)
    assert leaks([*secrets, granted.grant, granted.id], stage.show(renewal, ROB)) == []
    assert stage.show(renewal, ZOE).grant == granted.grant


def test_a_tier_that_is_not_blind_shows_who_asks(stage, secrets):
    application = handed_in(stage, "extended")
    view = stage.show(application, RIA)
    assert not view.blind
    assert (view.applicant, view.asked.institution) == (ZOE.person_id, INSTITUTION)


def test_mails_to_reviewers_name_nobody(stage, secrets):
    from sqlalchemy import select

    from transom.access.programme.clockwork import tick
    from transom.storage.tables import outbox

    handed_in(stage)
    stage.forward(days=15)
    stage.do(tick)
    mails = stage.look(select(outbox).where(outbox.c.recipient == "reviewers"))
    assert [mail.subject for mail in mails] == ["An application waits", "A decision is overdue"]
    assert [secret for secret in secrets for mail in mails if secret in str(tuple(mail))] == []
    assert ADA.person_id not in str(mails)
