"""The embargo of an application is put on its project when it is approved; none is ever shortened so."""

import json
from datetime import timedelta

import pytest
from programme_stage import ADA, RIA, ROB
from sqlalchemy import select

from transom.access.projects import projects
from transom.access.projects.embargo import MONTHS, history, opens
from transom.access.projects.projects import Texts
from transom.errors import Conflict, InvalidRequest
from transom.schema.budgets import Quotas
from transom.storage.tables import embargoes


def choices(stage):
    """Of the stage's project: the months, and whose choice."""
    query = select(embargoes.c.months, embargoes.c.person_id).where(embargoes.c.project_id == stage.project)
    return [tuple(row) for row in stage.look(query.order_by(embargoes.c.number))]


def noted(stage):
    return [entry for entry in stage.trail() if entry.action == "project.embargo"]


def choose(stage, months):
    """As somebody of the project does."""
    stage.database.write_sync(
        lambda c: projects.edit(c, stage.project, Texts(), months, by=ADA.person_id, now=stage.now)
    )


def test_what_was_not_approved_puts_no_embargo_on_anything(stage):
    asked = {"embargo_months": 12}
    stage.draft(**asked)
    stage.withdraw(stage.submitted(**asked))
    stage.declined(**asked)
    stage.ask_changes(stage.review(stage.submitted(**asked)))
    assert (choices(stage), noted(stage)) == ([], [])


def test_an_approval_that_is_refused_puts_no_embargo_on_anything(stage):
    application = stage.review(stage.submitted(embargo_months=12))
    with pytest.raises(InvalidRequest):
        stage.approve(application, met=["It is clear."])
    stage.approve(application)
    with pytest.raises(Conflict):
        stage.approve(application)
    assert choices(stage) == [(12, ADA.person_id)]


@pytest.mark.parametrize("shorter", [0, 3])
def test_an_approval_never_shortens_what_the_project_chose(stage, shorter):
    choose(stage, 6)
    stage.forward(days=1)
    application = stage.approved(embargo_months=shorter)
    assert choices(stage) == [(6, ADA.person_id)]
    assert application.events[-1].details["embargo_months"] == 6
    assert stage.shown_grant(application.grant).embargo_months == 6


@pytest.mark.parametrize("kind", ["renewal", "supplement"])
def test_a_renewal_or_supplement_lengthens_it_and_never_shortens(stage, kind):
    grant = stage.approved(tier="extended", embargo_months=3).grant
    more = {"quotas": Quotas(tokens_total=1)} if kind == "supplement" else {}
    for months in (0, 3, 12, 6):
        stage.forward(days=1)
        stage.approved(tier="extended", kind=kind, grant=grant, embargo_months=months, **more)
    assert choices(stage) == [(3, ADA.person_id), (12, ADA.person_id)]
    assert stage.shown_grant(grant).embargo_months == 3


def test_what_a_project_shortened_is_lengthened_again_by_what_it_asks_for(stage):
    stage.approved(embargo_months=12)
    stage.forward(days=1)
    choose(stage, 0)
    stage.forward(days=1)
    stage.approved(tier="extended", embargo_months=6)
    assert [months for months, _ in choices(stage)] == [12, 0, 6]


@pytest.mark.parametrize("months", [months for months in MONTHS if months])
def test_it_is_the_applicants_choice_and_the_deciders_act(stage, months):
    application = stage.approved(embargo_months=months)
    assert choices(stage) == [(months, ADA.person_id)]
    (entry,) = noted(stage)
    assert (entry.actor, entry.subject, entry.project_id) == (RIA.person_id, stage.project, stage.project)
    assert json.loads(entry.details) == {"application": application.id, "before": 0, "months": months}
    assert application.events[-1].details["embargo_months"] == months


def test_an_instant_tier_puts_it_on_by_the_server_itself(stage):
    stage.submitted(tier="open", embargo_months=3)
    assert choices(stage) == [(3, ADA.person_id)]
    assert noted(stage)[0].actor == "system"


def test_an_appeal_that_is_granted_puts_on_what_was_asked_for(stage):
    appeal = stage.appeal(stage.declined(embargo_months=6))
    stage.approve(stage.review(appeal, ROB), ROB)
    assert choices(stage) == [(6, ADA.person_id)]


def test_records_of_before_that_were_open_stay_open_and_later_ones_wait(stage):
    made = stage.now
    choose(stage, 3)
    stage.forward(days=120)
    stage.approved(embargo_months=12)
    known = stage.database.read_sync(lambda connection: history(connection, stage.project))
    assert opens(made, known) < stage.now
    assert opens(stage.now, known) > stage.now + timedelta(days=364)
