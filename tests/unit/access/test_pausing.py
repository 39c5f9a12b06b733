"""While a project or a person is suspended, or a project archived, its applications wait; nothing is lost."""

from datetime import timedelta

import pytest
from programme_stage import ADA, BEN, EVE, OLI, RIA, START
from sqlalchemy import insert, select

from tests.offices import OPERATOR, Letters, Time, office_over
from transom.access.credentials.peppers import generate
from transom.access.programme.clockwork import tick
from transom.access.programme.statistics import statistics
from transom.errors import Conflict, Forbidden, NotFound, Suspended
from transom.schema.budgets import Quotas
from transom.schema.projects import ProjectChange
from transom.services.people import projects, rights, suspensions
from transom.storage.tables import applications, outbox, people

pytestmark = pytest.mark.anyio

REASON = "It was found on a public page."
CAUSES = ("project suspended", "project archived", "applicant suspended")


class Closing:
    """What closes a project to its people, and opens it again."""

    def __init__(self, stage):
        self.stage, self.time = stage, Time(START)
        self.office = office_over(stage.database, generate(), self.time, Letters())

    def subject(self, cause):
        return f"person:{ADA.person_id}" if cause.startswith("applicant") else f"project:{self.stage.project}"

    async def close(self, cause):
        self.time.now = self.stage.now
        if cause == "project archived":
            await self.archive(archived=True)
        else:
            await suspensions.suspend(self.office, OPERATOR, self.subject(cause), REASON)

    async def open(self, cause):
        self.time.now = self.stage.now
        if cause == "project archived":
            await self.archive(archived=False)
        else:
            await suspensions.lift(self.office, OPERATOR, self.subject(cause), "It is gone from there.")

    async def archive(self, *, archived):
        await projects.change(self.office, ADA, self.stage.project, ProjectChange(archived=archived))


@pytest.fixture
def closing(stage):
    return Closing(stage)


def refusal(cause):
    """What the project's people are told."""
    return Conflict if cause == "project archived" else Suspended


@pytest.mark.parametrize("cause", CAUSES)
async def test_nobody_applies_then(stage, closing, cause):
    draft, waiting = stage.draft(), stage.ask_changes(stage.review(stage.submitted()))
    declined = stage.declined()
    await closing.close(cause)
    draft, waiting = stage.show(draft), stage.show(waiting)
    for act in (
        stage.draft,
        lambda: stage.submit(draft),
        lambda: stage.submit(waiting),
        lambda: stage.edit(draft, purpose="another"),
        lambda: stage.edit(waiting, purpose="another"),
        lambda: stage.appeal(declined),
        lambda: stage.draft(tier="open"),
    ):
        with pytest.raises(refusal(cause)) as refused:
            act()
        told = "archived" if cause == "project archived" else REASON
        assert told in refused.value.message
        assert refused.value.code == ("conflict" if cause == "project archived" else "suspended")


@pytest.mark.parametrize("cause", CAUSES)
async def test_nobody_decides_then_and_reviewers_are_not_told_the_operators_reason(stage, closing, cause):
    submitted, in_review = stage.submitted(), stage.review(stage.submitted())
    await closing.close(cause)
    submitted, in_review = stage.show(submitted), stage.show(in_review)
    for act in (
        lambda: stage.review(submitted),
        lambda: stage.approve(in_review),
        lambda: stage.decline(in_review),
        lambda: stage.ask_changes(in_review),
    ):
        with pytest.raises(Conflict, match="paused") as refused:
            act()
        assert REASON not in refused.value.message
        assert refused.value.code == "conflict"
    assert stage.grant() is None
    assert stage.queue() == []
    assert stage.show(in_review, RIA).paused is not None


@pytest.mark.parametrize("cause", CAUSES)
async def test_who_read_it_before_and_decides_now_is_told_that_it_is_paused(stage, closing, cause):
    read = stage.review(stage.submitted())
    await closing.close(cause)
    with pytest.raises(Conflict, match="paused"):
        stage.approve(read)
    await closing.open(cause)
    with pytest.raises(Conflict, match="moved on"):
        stage.approve(read)


@pytest.mark.parametrize("cause", CAUSES)
async def test_what_is_open_waits_where_it_is_and_an_event_says_who_when_and_why(stage, closing, cause):
    opened = [
        stage.draft(),
        stage.submitted(),
        stage.review(stage.submitted()),
        stage.ask_changes(stage.review(stage.submitted())),
    ]
    closed = [stage.withdraw(stage.draft()), stage.declined(), stage.approved(tier="extended")]
    stage.forward(hours=1)
    await closing.close(cause)
    actor = ADA.person_id if cause == "project archived" else OPERATOR.person_id
    for before in opened:
        now = stage.show(before)
        assert (now.state, now.version) == (before.state, before.version + 1)
        assert now.paused == "2026-01-31T13:00:00Z"
        assert (now.decide_by, now.overdue) == (None, False)
        event = now.events[-1]
        assert (event.action, event.actor, event.at, event.state) == ("pause", actor, now.paused, now.state)
        assert event.reason.rstrip(".").endswith(cause.split()[1])
        assert REASON not in event.reason
        (entry,) = (
            row for row in stage.trail() if (row.subject, row.action) == (now.id, "application.pause")
        )
        assert (entry.actor, entry.at, entry.reason) == (actor, stage.now, event.reason)
    for before in closed:
        assert stage.show(before).version == before.version


@pytest.mark.parametrize("cause", CAUSES)
async def test_it_goes_on_where_it_was_and_the_promise_is_moved_by_the_time_it_waited(stage, closing, cause):
    application = stage.review(stage.submitted())
    stage.forward(days=2)
    await closing.close(cause)
    stage.forward(days=40)
    assert stage.do(tick) == 0
    await closing.open(cause)
    now = stage.show(application)
    assert (now.state, now.paused, now.events[-1].action) == ("in_review", None, "resume")
    assert now.decide_by == f"{START + timedelta(days=14 + 40):%Y-%m-%dT%H:%M:%SZ}"
    assert [each.id for each in stage.queue()] == [application.id]
    assert stage.approve(now).state == "approved"


@pytest.mark.parametrize("cause", CAUSES)
async def test_what_waits_for_its_applicant_does_not_lapse_and_has_its_whole_time_again(
    stage, closing, cause
):
    waiting, draft = stage.ask_changes(stage.review(stage.submitted())), stage.draft()
    stage.forward(days=29)
    await closing.close(cause)
    stage.forward(days=400)
    assert stage.do(tick) == 0
    await closing.open(cause)
    stage.forward(days=29)
    assert stage.do(tick) == 0
    stage.forward(days=1)
    assert stage.do(tick) == 1
    assert (stage.show(waiting).state, stage.show(draft).state) == ("expired", "draft")


async def test_reviewers_are_told_again_of_what_goes_on_and_not_of_what_waits_for_others(stage, closing):
    stage.submitted()
    stage.draft()
    await closing.close("project suspended")
    before = stage.look(select(outbox.c.name))
    stage.forward(days=100)
    stage.do(tick)
    assert stage.look(select(outbox.c.name)) == before
    await closing.open("project suspended")
    assert len(stage.look(select(outbox.c.name))) == len(before) + 1


async def test_it_waits_for_as_long_as_anything_stands_against_it(stage, closing):
    application = stage.submitted()
    for cause in CAUSES[1:] + CAUSES[:1]:
        await closing.close(cause)
    stage.forward(days=1)
    await closing.open("project suspended")
    await closing.open("applicant suspended")
    assert stage.show(application).paused == "2026-01-31T12:00:00Z"
    await closing.open("project archived")
    assert stage.show(application).paused is None
    assert [event.action for event in stage.show(application).events][2:] == ["pause", "resume"]


@pytest.mark.parametrize("cause", CAUSES)
async def test_its_people_read_it_comment_on_it_and_give_it_up_meanwhile(stage, closing, cause):
    application = stage.review(stage.submitted())
    await closing.close(cause)
    now = stage.comment(application, ADA)
    assert now.may == ["comment", "withdraw"]
    assert stage.show(application, BEN).may == ["comment"]
    stage.comment(application, RIA)
    gone = stage.withdraw(stage.show(application))
    assert (gone.state, gone.paused) == ("withdrawn", None)
    await closing.open(cause)
    assert stage.show(application).version == gone.version


async def test_whoever_else_manages_the_project_is_not_told_why_its_applicant_is_suspended(stage, closing):
    stage.join(stage.project, EVE, "admin")
    draft = stage.draft()
    await closing.close("applicant suspended")
    with pytest.raises(Conflict, match="withdraw it and apply anew") as refused:
        stage.submit(stage.show(draft), EVE)
    assert REASON not in refused.value.message
    stage.submit(stage.draft(EVE, tier="open"), EVE)
    assert stage.grant() is not None


async def test_other_projects_and_other_peoples_applications_go_on(stage, closing):
    other = stage.add_project("prj_other", EVE, ADA)
    theirs = stage.submit(stage.draft(EVE, project=other), EVE)
    await closing.close("project suspended")
    await closing.close("applicant suspended")
    assert stage.show(theirs, EVE).paused is None
    assert stage.approve(stage.review(theirs)).state == "approved"


async def test_the_suspension_of_a_member_who_did_not_make_it_stops_no_application(stage, closing):
    application = stage.submitted()
    await suspensions.suspend(closing.office, OPERATOR, f"person:{BEN.person_id}", REASON)
    assert stage.show(application).paused is None
    assert stage.approve(stage.review(application)).state == "approved"


@pytest.mark.parametrize("caller", [RIA, OLI])
async def test_a_suspended_reviewer_sees_and_decides_nothing(stage, closing, caller):
    application = stage.review(stage.submitted())
    await stage.database.write(lambda c: _account(c, caller))
    await suspensions.suspend(closing.office, OPERATOR, f"person:{caller.person_id}", REASON)
    for act in (stage.approve, stage.decline, stage.ask_changes, stage.comment, stage.show):
        with pytest.raises(Suspended, match=REASON):
            act(application, caller)
    with pytest.raises(Suspended):
        stage.queue(caller)


async def test_a_suspended_operator_lifts_no_suspension_and_ends_no_grant(stage, closing):
    grant = stage.approved(tier="open").grant
    await stage.database.write(lambda c: _account(c, OLI))
    await suspensions.suspend(closing.office, OPERATOR, f"person:{OLI.person_id}", REASON)
    with pytest.raises(Suspended):
        await suspensions.lift(closing.office, OLI, f"person:{OLI.person_id}", "I am innocent.")
    for act in (stage.end, stage.shown_grant):
        with pytest.raises(Suspended):
            act(grant, OLI)


@pytest.mark.parametrize("cause", CAUSES)
async def test_what_is_held_back_is_not_released_then(stage, closing, cause):
    grant = stage.approved(tier="extended").grant
    await closing.close(cause)
    with pytest.raises(refusal(cause)):
        stage.progress(grant)
    await closing.open(cause)
    assert stage.progress(grant).holdback_percent == 0


async def test_an_instant_tier_grants_nothing_then_either(stage, closing):
    grant = stage.submitted(tier="open", quotas=Quotas(tokens_total=1)).grant
    supplement = stage.draft(tier="open", kind="supplement", grant=grant, quotas=Quotas(tokens_total=1))
    await closing.close("project suspended")
    with pytest.raises(Suspended):
        stage.submit(stage.show(supplement))
    assert dict(stage.shown_grant(grant).quotas.amounts())["tokens_total"] == 1


async def test_what_a_deleted_project_applied_for_is_withdrawn_and_it_applies_for_nothing(stage, closing):
    opened = [stage.draft(), stage.submitted(), stage.review(stage.submitted())]
    await closing.close("project archived")
    closing.time.now = stage.now
    shred = closing.office.records.shred

    async def look(project_id):
        with pytest.raises(NotFound):
            stage.draft()
        return await shred(project_id)

    closing.office.records.shred = look
    await rights.delete_project(closing.office, ADA, stage.project, "A project")
    for application in opened:
        last = stage.events(application)[-1]
        assert (last.action, last.actor, last.state) == ("withdraw", ADA.person_id, "withdrawn")
        assert last.reason == "Its project was deleted."
    assert stage.look(select(applications.c.paused, applications.c.decide_by).distinct()) == [(None, None)]
    assert stage.queue() == []
    with pytest.raises((Conflict, Forbidden)):
        stage.approve(stage.show(opened[2], RIA))


def _account(connection, person):
    row = {"id": person.person_id, "name": "", "created": START}
    connection.execute(insert(people).values(row))


async def test_statistics_count_no_day_in_which_an_application_was_paused(stage, closing):
    application = stage.review(stage.submitted())
    stage.forward(days=1)
    await closing.close("project suspended")
    stage.forward(days=5)
    await closing.open("project suspended")
    stage.forward(days=2)
    stage.approve(stage.show(application))
    found = stage.do(lambda connection, occasion: statistics(connection, occasion.programme))
    [research] = [tier for tier in found.tiers if tier.tier == "research"]
    assert research.median_days_to_decide == "3.00"


async def test_a_pause_before_the_submission_counts_for_nothing_either(stage, closing):
    application = stage.draft()
    await closing.close("project suspended")
    stage.forward(days=5)
    await closing.open("project suspended")
    submitted = stage.submit(stage.show(application))
    stage.forward(days=2)
    stage.approve(stage.review(submitted))
    found = stage.do(lambda connection, occasion: statistics(connection, occasion.programme))
    [research] = [tier for tier in found.tiers if tier.tier == "research"]
    assert research.median_days_to_decide == "2.00"
