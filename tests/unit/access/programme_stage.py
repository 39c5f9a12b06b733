"""A programme, a database and people, with a clock that moves when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from tests import databases
from transom.access.people.persons import PersonCaller
from transom.access.programme import applying, deciding, holding, reading
from transom.access.programme.desk import Desk
from transom.access.programme.grants import grant_for
from transom.access.programme.programme import parse
from transom.errors import InvalidRequest
from transom.schema.applications import (
    Act,
    Approval,
    Changes,
    Comment,
    NewApplication,
    ReasonedAct,
    Refusal,
)
from transom.schema.grants import Ending, ProgressReport
from transom.storage.database import Database
from transom.storage.tables import application_events, members, outbox, projects, trail

START = datetime(2026, 1, 31, 12, tzinfo=UTC)

PROGRAMME = """
name = "Test programme"
contact = "desk@example.org"
terms = "terms-1"
draft_days = 90
changes_days = 30

[tiers.open]
title = "Open"
review = false
scopes = ["model:sample", "model:logprobs"]
duration_days = 90
[tiers.open.quotas]
requests_per_minute = 60
tokens_total = 1000
[tiers.open.most]
tokens_total = 1500

[tiers.research]
title = "Research"
review = true
asks = ["purpose", "method"]
scopes = ["model:sample", "model:logprobs", "model:bias"]
models = ["small", "large"]
duration_days = 365
decision_days = 14
criteria = ["It is clear.", "It is safe."]
blind = true
[tiers.research.quotas]
requests_per_minute = 100
tokens_total = 10000
released_rank = 100

[tiers.extended]
title = "Extended"
review = true
scopes = ["model:sample", "model:distributions"]
duration_days = 365
decision_days = 30
criteria = ["It is clear."]
holdback_percent = 50
holdback_from_tokens = 50000
[tiers.extended.quotas]
tokens_total = 100001
requests_per_minute = 7
[tiers.extended.most]
tokens_total = 500000

[pools.tier.open]
tokens_per_minute = 5000
[pools.model.small]
requests_in_flight = 9
[pools.person]
requests_in_flight = 4
[pools.key]
requests_in_flight = 2
"""

CRITERIA = {
    "open": [],
    "research": ["It is clear.", "It is safe."],
    "extended": ["It is clear."],
}

ADA = PersonCaller("per_ada")
"""Owns the project."""
BEN = PersonCaller("per_ben")
"""Is a plain member of it."""
EVE = PersonCaller("per_eve")
"""Has nothing to do with any of it."""
RIA = PersonCaller("per_ria", frozenset({"reviewer"}))
ROB = PersonCaller("per_rob", frozenset({"reviewer"}))
OLI = PersonCaller("per_oli", frozenset({"operator"}))

PURPOSE = {"purpose": "Why do models stop?", "method": "Ask, and count."}


class Stage:
    def __init__(self, folder, text=PROGRAMME, served=("small", "large", "other")):
        self.now = START
        self.database = Database(databases.fresh(Path(folder)))
        self.desk = Desk(self.database, parse(text), served=served, clock=lambda: self.now)
        self.desk.open()
        self.project = self.add_project("prj_first", ADA, BEN)

    def close(self):
        self.database.close()

    def under(self, text):
        """The same house, under another programme."""
        self.desk = Desk(self.database, parse(text), clock=lambda: self.now)
        self.desk.open()

    def add_project(self, project_id, owner, *others):
        def write(connection):
            row = {"id": project_id, "name": "A project", "created": self.now, "last_sequence": 0}
            connection.execute(insert(projects).values(row))
            for person, role in [(owner, "owner"), *((other, "member") for other in others)]:
                self._join(connection, project_id, person, role)

        self.database.write_sync(write)
        return project_id

    def join(self, project_id, person, role):
        self.database.write_sync(lambda connection: self._join(connection, project_id, person, role))

    def _join(self, connection, project_id, person, role):
        row = {"project_id": project_id, "person_id": person.person_id, "role": role, "joined": self.now}
        connection.execute(insert(members).values(row))

    def forward(self, **more):
        self.now += timedelta(**more)

    def do(self, step, **arguments):
        return self.desk.write_sync(partial(step, **arguments))

    def look(self, query):
        return self.database.read_sync(lambda connection: connection.execute(query).all())

    def draft(self, caller=ADA, *, project=None, tier="research", **more):
        body = NewApplication(project=project or self.project, tier=tier, **PURPOSE | more)
        return self.do(applying.create, caller=caller, body=body)

    def edit(self, application, caller=ADA, **changes):
        body = Changes(version=application.version, **changes)
        return self.do(applying.edit, caller=caller, application_id=application.id, body=body)

    def submit(self, application, caller=ADA, reason=""):
        body = Act(version=application.version, reason=reason)
        return self.do(applying.submit, caller=caller, application_id=application.id, body=body)

    def submitted(self, **more):
        return self.submit(self.draft(**more))

    def withdraw(self, application, caller=ADA, reason=""):
        body = Act(version=application.version, reason=reason)
        return self.do(applying.withdraw, caller=caller, application_id=application.id, body=body)

    def comment(self, application, caller, text="a comment"):
        body = Comment(text=text)
        return self.do(applying.comment, caller=caller, application_id=application.id, body=body)

    def appeal(self, application, caller=ADA, reason="you overlooked a page"):
        body = ReasonedAct(version=application.version, reason=reason)
        return self.do(applying.appeal, caller=caller, application_id=application.id, body=body)

    def review(self, application, caller=RIA):
        body = Act(version=application.version)
        return self.do(deciding.start_review, caller=caller, application_id=application.id, body=body)

    def ask_changes(self, application, caller=RIA, reason="which pages?"):
        body = ReasonedAct(version=application.version, reason=reason)
        return self.do(deciding.ask_changes, caller=caller, application_id=application.id, body=body)

    def decline(self, application, caller=RIA, reason="not clear", met=()):
        body = Refusal(version=application.version, reason=reason, met=list(met))
        return self.do(deciding.decline, caller=caller, application_id=application.id, body=body)

    def approve(self, application, caller=RIA, **more):
        more = {"met": CRITERIA[application.tier]} | more
        body = Approval(version=application.version, **more)
        return self.do(deciding.approve, caller=caller, application_id=application.id, body=body)

    def approved(self, **more):
        """An application that was handed in, and granted where people decide."""
        application = self.submitted(**more)
        return application if application.state == "approved" else self.approve(self.review(application))

    def declined(self, **more):
        return self.decline(self.review(self.submitted(**more)))

    def show(self, application, caller=ADA):
        return self.do(reading.show, caller=caller, application_id=application.id)

    def queue(self, caller=RIA):
        return self.do(deciding.queue, caller=caller)

    def grant(self, project=None, now=None):
        return self.database.read_sync(
            lambda connection: grant_for(connection, project or self.project, now or self.now)
        )

    def shown_grant(self, grant_id, caller=ADA):
        return self.do(holding.show_grant, caller=caller, grant_id=grant_id)

    def progress(self, grant_id, caller=ADA, report="half of it is done"):
        body = ProgressReport(report=report)
        return self.do(holding.report_progress, caller=caller, grant_id=grant_id, body=body)

    def end(self, grant_id, caller=OLI, reason="against the terms"):
        return self.do(holding.end_grant, caller=caller, grant_id=grant_id, body=Ending(reason=reason))

    def mails(self):
        rows = self.look(
            select(outbox.c.recipient, outbox.c.subject).order_by(outbox.c.created, outbox.c.name)
        )
        return [tuple(row) for row in rows]

    def trail(self):
        return self.look(select(trail).order_by(trail.c.number))

    def events(self, application):
        query = select(application_events).where(application_events.c.application_id == application.id)
        return self.look(query.order_by(application_events.c.number))


def refused_param(act, *arguments, **more):
    """The field that an act is refused for."""
    with pytest.raises(InvalidRequest) as refused:
        act(*arguments, **more)
    return refused.value.param
