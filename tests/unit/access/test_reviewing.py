"""Who may decide on what, that one decision counts, and that appeals come before somebody else."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from programme_stage import ADA, BEN, CRITERIA, EVE, OLI, PROGRAMME, PURPOSE, RIA, ROB, Stage
from sqlalchemy import delete

from transom.access.people.persons import PersonCaller, at_the_machine
from transom.access.programme.desk import Desk
from transom.errors import Conflict, Forbidden, InvalidRequest, NotFound
from transom.schema.applications import RESETTABLE, Asked, Changes
from transom.storage.database import Database
from transom.storage.tables import members

REVIEWING_ADA = PersonCaller(ADA.person_id, frozenset({"reviewer", "operator"}))
REVIEWING_BEN = PersonCaller(BEN.person_id, frozenset({"reviewer"}))


@pytest.mark.parametrize("who", [REVIEWING_ADA, REVIEWING_BEN], ids=["applicant", "member"])
@pytest.mark.parametrize("act", ["approve", "decline", "ask_changes", "review"])
def test_nobody_reviews_an_application_of_their_own_project(stage, who, act):
    application = stage.submitted()
    if act != "review":
        application = stage.review(application)
    with pytest.raises(Forbidden, match="own project"):
        getattr(stage, act)(application, who)
    assert stage.show(application).state == application.state


def test_nobody_reviews_what_they_applied_for_after_leaving_the_project(stage):
    reviewing = PersonCaller("per_admin", frozenset({"reviewer"}))
    project = stage.add_project("prj_second", ADA)
    stage.join(project, reviewing, "admin")
    application = stage.submit(stage.draft(reviewing, project=project), reviewing)
    leave = delete(members).where(members.c.person_id == reviewing.person_id)
    stage.database.write_sync(lambda connection: connection.execute(leave).rowcount)
    with pytest.raises(Forbidden, match="that they made"):
        stage.review(application, reviewing)
    assert application.id not in [each.id for each in stage.queue(reviewing)]


def test_a_member_who_does_not_manage_the_project_cannot_apply_for_it(stage):
    with pytest.raises(Forbidden):
        stage.draft(BEN)
    with pytest.raises(NotFound):
        stage.draft(EVE)
    with pytest.raises(NotFound):
        stage.draft(OLI, project="prj_nowhere")


def test_drafts_are_nobodys_business(stage):
    draft = stage.draft()
    for who in (RIA, OLI, EVE):
        with pytest.raises(NotFound):
            stage.show(draft, who)
    assert stage.show(draft, BEN).state == "draft"
    assert stage.queue() == []


def test_the_queue_is_for_reviewers_and_leaves_out_their_own(stage):
    mine = stage.submitted()
    stage.forward(days=1)
    other = stage.add_project("prj_second", EVE)
    theirs = stage.submit(stage.draft(EVE, project=other), EVE)
    assert [each.id for each in stage.queue()] == [mine.id, theirs.id]
    assert [each.id for each in stage.queue(REVIEWING_BEN)] == [theirs.id]
    with pytest.raises(Forbidden):
        stage.queue(EVE)


def test_what_waits_too_long_is_overdue(stage):
    application = stage.submitted()
    stage.forward(days=14)
    assert not stage.queue()[0].overdue
    stage.forward(seconds=1)
    assert stage.queue()[0].overdue
    assert stage.show(application).decide_by == "2026-02-14T12:00:00Z"


def test_the_clock_stands_while_changes_are_asked_and_starts_again(stage):
    application = stage.review(stage.submitted())
    stage.forward(days=10)
    application = stage.ask_changes(application)
    assert application.decide_by is None
    stage.forward(days=20)
    application = stage.submit(stage.edit(stage.show(application), purpose="which pages: 3 to 5"))
    assert (application.state, application.decide_by) == ("submitted", "2026-03-16T12:00:00Z")
    assert application.submitted == "2026-01-31T12:00:00Z"


def test_of_many_who_decide_at_once_one_wins(stage):
    """Each with a database of its own, as gateways in several processes have."""
    application = stage.review(stage.submitted())
    gateways = []
    for index in range(8):
        gateway = object.__new__(Stage)
        gateway.now, gateway.project = stage.now, stage.project
        gateway.database = Database(str(stage.database._writing.url))
        gateway.desk = Desk(gateway.database, stage.desk.programme, clock=lambda: stage.now)
        gateways.append((gateway, PersonCaller(f"per_{index}", frozenset({"reviewer"}))))

    def decide(index):
        gateway, reviewer = gateways[index]
        try:
            return (gateway.approve if index % 2 else gateway.decline)(application, reviewer).state
        except Conflict as lost:
            return lost.message

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(decide, range(8)))
    for gateway, _ in gateways:
        gateway.close()
    won = [outcome for outcome in outcomes if outcome in {"approved", "declined"}]
    assert len(won) == 1
    assert all("moved on" in outcome for outcome in outcomes if outcome not in won)
    shown = stage.show(application)
    assert shown.state == won[0]
    assert len(shown.events) == len(application.events) + 1
    assert (stage.grant() is not None) == (won == ["approved"])


def test_an_approval_needs_every_criterion(stage):
    application = stage.review(stage.submitted())
    with pytest.raises(InvalidRequest, match=r"It is safe\.") as refused:
        stage.approve(application, met=["It is clear."])
    assert refused.value.param == "met"
    with pytest.raises(InvalidRequest, match="nice"):
        stage.approve(application, met=[*CRITERIA["research"], "It is nice."])
    with pytest.raises(InvalidRequest, match="nice"):
        stage.decline(application, met=["It is nice."])
    approved = stage.approve(application)
    assert approved.events[-1].details["met"] == CRITERIA["research"]


def test_a_declined_application_says_why_and_which_criteria_were_met(stage):
    declined = stage.show(stage.declined())
    assert declined.state == "declined"
    assert declined.events[-1].reason == "not clear"
    assert declined.may == ["appeal"]


class TestAppeal:
    def test_it_is_an_application_of_its_own_and_the_declined_one_stays(self, stage):
        declined = stage.declined(purpose="why?")
        appeal = stage.appeal(stage.show(declined))
        assert (appeal.kind, appeal.intent, appeal.state) == ("appeal", "new", "submitted")
        assert appeal.asked.purpose == "why?"
        assert appeal.events[0].reason == "you overlooked a page"
        assert stage.show(declined).state == "declined"
        assert stage.show(declined).events[-1].details == {"appeal": appeal.id}

    def test_who_declined_does_not_decide_on_it(self, stage):
        appeal = stage.appeal(stage.show(stage.declined()))
        for act in (stage.review, stage.comment):
            with pytest.raises(Forbidden, match="somebody else than who declined"):
                act(appeal, RIA, **({"text": "no"} if act == stage.comment else {}))
        assert [each.id for each in stage.queue(RIA)] == []
        assert [each.id for each in stage.queue(ROB)] == [appeal.id]
        taken = stage.review(appeal, ROB)
        with pytest.raises(Forbidden, match="somebody else than who declined"):
            stage.approve(taken, RIA)
        assert stage.approve(taken, ROB).state == "approved"
        assert stage.grant().application_id == appeal.id

    def test_nobody_appeals_twice(self, stage):
        declined = stage.declined()
        appeal = stage.appeal(stage.show(declined))
        with pytest.raises(Conflict, match=appeal.id):
            stage.appeal(stage.show(declined))
        lost = stage.decline(stage.review(appeal, ROB), ROB)
        with pytest.raises(Conflict, match="may apply anew"):
            stage.appeal(stage.show(lost))

    def test_only_whoever_manages_the_project_appeals(self, stage):
        declined = stage.show(stage.declined())
        with pytest.raises(Forbidden):
            stage.appeal(declined, BEN)
        with pytest.raises(Forbidden):
            stage.appeal(declined, ROB)
        with pytest.raises(NotFound):
            stage.appeal(declined, EVE)

    def test_one_operator_at_the_machine_does_not_decide_on_both(self, stage):
        root = at_the_machine("root")
        declined = stage.decline(stage.review(stage.submitted(), root), root)
        appeal = stage.appeal(stage.show(declined))
        with pytest.raises(Forbidden, match="somebody else"):
            stage.review(appeal, root)
        assert stage.review(appeal, at_the_machine("ada")).state == "in_review"


@pytest.mark.parametrize("question", ["purpose", "method"])
def test_what_the_tier_asks_must_be_answered_to_submit(stage, question):
    draft = stage.draft(**{question: "  "})
    with pytest.raises(InvalidRequest) as refused:
        stage.submit(draft)
    assert refused.value.param == question
    assert stage.submit(stage.edit(draft, **{question: "because"})).state == "submitted"


def test_an_instant_tier_asks_less(stage):
    assert stage.submitted(tier="open", method="").state == "approved"


def test_an_unknown_tier_is_refused_by_the_names_of_those_there_are(stage):
    with pytest.raises(InvalidRequest, match="open, research, extended"):
        stage.draft(tier="platinum")
    draft = stage.draft()
    with pytest.raises(InvalidRequest, match="platinum"):
        stage.edit(draft, tier="platinum")


def test_an_edit_without_fields_is_refused_and_one_with_some_says_which(stage):
    draft = stage.draft()
    with pytest.raises(InvalidRequest, match="at least one"):
        stage.edit(draft)
    edited = stage.edit(draft, method="Ask twice.", models=["small"])
    assert (edited.asked.method, edited.asked.purpose) == ("Ask twice.", PURPOSE["purpose"])
    assert edited.events[-1].details == {"fields": ["method", "models"]}
    again = stage.edit(edited, reset=["models", "method"], method="Ask thrice.")
    assert (again.asked.models, again.asked.method) == ("all", "Ask thrice.")
    assert stage.edit(again, reset=["method"]).asked.method == ""


def test_everything_but_the_tier_can_be_put_back():
    assert set(RESETTABLE) == Asked.model_fields.keys() - {"tier"}
    assert Changes.model_fields.keys() == Asked.model_fields.keys() | {"version", "reset"}


def test_a_decision_when_the_tier_is_no_longer_offered_is_refused_and_nothing_lost(stage):
    application = stage.review(stage.submitted())
    without = PROGRAMME.replace("[tiers.research", "[tiers.study")
    stage.under(without)
    with pytest.raises(InvalidRequest, match="research"):
        stage.approve(application)
    stage.under(PROGRAMME)
    assert stage.approve(application).state == "approved"


def test_what_was_read_blind_stays_blind_when_another_tier_is_asked_for(stage):
    application = stage.ask_changes(stage.review(stage.submitted()))
    stage.submit(stage.edit(stage.show(application), tier="extended"))
    assert stage.show(application, ROB).blind


def test_members_read_all_of_it_and_may_comment(stage):
    application = stage.submitted()
    commented = stage.comment(application, BEN, "we also have a GPU")
    assert commented.version == application.version
    assert commented.events[-1].actor == BEN.person_id
    assert not commented.blind
