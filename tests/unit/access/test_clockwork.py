"""What time does: each thing once, however many gateways look at the clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from programme_stage import PROGRAMME
from sqlalchemy import select

from transom.access.programme.clockwork import tick
from transom.access.programme.desk import Desk
from transom.schema.budgets import Quotas
from transom.storage.database import Database
from transom.storage.tables import outbox


def ends_announced(stage):
    return [subject.partition("ends in ")[2] for _, subject in stage.mails() if "ends in" in subject]


def test_a_draft_that_nobody_touches_lapses(stage):
    draft = stage.draft()
    stage.forward(days=60)
    draft = stage.edit(draft, method="Ask more.")
    stage.forward(days=90, seconds=-1)
    assert stage.do(tick) == 0
    stage.forward(seconds=1)
    assert stage.do(tick) == 1
    lapsed = stage.show(draft)
    assert lapsed.state == "expired"
    assert (lapsed.events[-1].actor, lapsed.events[-1].action) == ("system", "expire")
    assert "90 days" in lapsed.events[-1].reason
    assert stage.do(tick) == 0


def test_what_was_given_back_lapses_and_what_waits_for_reviewers_does_not(stage):
    waits = stage.submitted()
    given_back = stage.ask_changes(stage.review(stage.submitted()))
    stage.forward(days=31)
    stage.do(tick)
    assert stage.show(given_back).state == "expired"
    assert stage.show(waits).state == "submitted"
    assert ("per_ada", f"Application {given_back.id}: expired") in stage.mails()


def test_a_broken_promise_is_told_once_for_each_promise(stage):
    application = stage.submitted()
    stage.forward(days=14, seconds=1)
    assert [stage.do(tick) for _ in range(3)] == [1, 0, 0]
    taken = stage.ask_changes(stage.review(stage.show(application)))
    stage.forward(days=5)
    assert stage.do(tick) == 0
    stage.submit(stage.edit(taken, purpose="why?"))
    stage.forward(days=15)
    assert [stage.do(tick) for _ in range(2)] == [1, 0]
    overdue = [recipient for recipient, subject in stage.mails() if subject == "A decision is overdue"]
    assert overdue == ["reviewers", "reviewers"]


def test_the_end_of_a_grant_is_announced_three_times_to_each_member(stage):
    stage.approved(tier="open")
    told = []
    for _ in range(91):
        stage.do(tick)
        stage.forward(days=1)
        told.append(len(ends_announced(stage)))
    assert ends_announced(stage) == ["30 days", "30 days", "7 days", "7 days", "1 day", "1 day"]
    assert [told.index(number) for number in (2, 4, 6)] == [60, 83, 89]


def test_a_renewed_grant_is_announced_again_and_an_ended_one_no_more(stage):
    granted = stage.approved(tier="open")
    stage.forward(days=65)
    stage.do(tick)
    stage.submitted(tier="open", kind="renewal", grant=granted.grant)
    stage.do(tick)
    assert ends_announced(stage) == ["30 days"] * 2
    stage.forward(days=60)
    stage.do(tick)
    assert ends_announced(stage) == ["30 days"] * 4
    stage.end(granted.grant)
    stage.forward(days=26)
    stage.do(tick)
    assert ends_announced(stage) == ["30 days"] * 4


def test_after_a_long_stop_only_the_nearest_announcement_is_made(stage):
    stage.approved(tier="open")
    stage.forward(days=89, hours=12)
    stage.do(tick)
    assert ends_announced(stage) == ["1 day"] * 2


def test_a_grant_of_a_week_is_not_announced_when_it_begins(stage):
    stage.approved(ends=date(2026, 2, 6))
    stage.do(tick)
    assert ends_announced(stage) == []
    stage.forward(days=6)
    stage.do(tick)
    assert ends_announced(stage) == ["1 day"] * 2


def test_several_gateways_at_once_do_each_thing_once(stage):
    stage.approved(tier="open")
    stage.approved(tier="extended", quotas=Quotas(tokens_total=1), ends=date(2026, 5, 1))
    drafts = [stage.draft() for _ in range(5)]
    stage.forward(days=89, hours=20)
    stage.submitted(tier="research")
    stage.forward(hours=1)
    gateways = [
        Desk(Database(str(stage.database._writing.url)), stage.desk.programme, clock=lambda: stage.now)
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda desk: desk.write_sync(tick), gateways))
    stage.forward(hours=4)
    with ThreadPoolExecutor(4) as pool:
        second = list(pool.map(lambda desk: desk.write_sync(tick), gateways))
    for desk in gateways:
        desk.database.close()
    # Two grants for two members each; then five drafts.
    assert (sum(first), sum(second)) == (4, 5)
    assert len(ends_announced(stage)) == 4
    for draft in drafts:
        assert [event.action for event in stage.show(draft).events] == ["create", "expire"]


@pytest.mark.parametrize("days", [1, 400])
def test_nothing_is_due_in_an_empty_house(stage, days):
    stage.forward(days=days)
    assert stage.do(tick) == 0


def test_a_shorter_term_counts_from_the_next_tick(stage):
    draft = stage.draft()
    stage.forward(days=5)
    stage.under(PROGRAMME.replace("draft_days = 90", "draft_days = 5"))
    assert stage.do(tick) == 1
    assert stage.show(draft).state == "expired"


def test_mails_are_ascii_whatever_people_write(stage):
    application = stage.review(stage.submitted(purpose="Größe"))
    stage.ask_changes(application, reason="für wen?")
    stage.forward(days=31)
    stage.do(tick)
    assert all(f"{mail.subject}{mail.text}".isascii() for mail in stage.look(select(outbox)))
