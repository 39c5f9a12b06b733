"""Once a project is deleted, none of the words of its people are left: in no table, and not in the files."""

import json
from collections import defaultdict
from pathlib import Path
from secrets import token_hex

import pytest
from programme_stage import ADA, BEN, OLI, RIA, ROB, START
from sqlalchemy import insert, select

from tests import databases
from tests.offices import OPERATOR, Desk, Letters, Time, office_over, record
from transom.access.credentials.peppers import generate
from transom.access.projects.roles import Role
from transom.access.rights import trail
from transom.errors import NotFound, StorageError
from transom.schema.applications import Asked
from transom.schema.budgets import Quotas
from transom.schema.projects import ProjectChange
from transom.services.people import projects, rights
from transom.storage.tables import applications, grant_changes, metadata, people, person_roles

pytestmark = pytest.mark.anyio

TEXTS = ("purpose", "method", "institution", "funding", "conflicts", "ethics")


class Canaries:
    """A word of its own for each thing that somebody can write; what they write is full of it."""

    def __init__(self):
        self.words = {}

    def sing(self, where, times=1):
        word = self.words.setdefault(where, f"canary{token_hex(8)}")
        return " ".join([word] * times)

    def heard(self, text):
        return {where for where, word in self.words.items() if word in text}


def in_tables(stage, canaries):
    """The columns in which each canary is."""
    found = defaultdict(set)
    for table in metadata.sorted_tables:
        for row in stage.look(select(table)):
            for column, value in row._mapping.items():
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                for where in canaries.heard(text):
                    found[where].add(f"{table.name}.{column}")
    return dict(found)


def in_files(folder, canaries):
    """The canaries in the bytes of the database and of all that SQLite puts beside it."""
    return set().union(*(canaries.heard(file.read_bytes().decode("latin-1")) for file in folder.iterdir()))


@pytest.fixture
def desk(stage):
    """An office on the stage."""
    time, letters = Time(START), Letters()
    return Desk(office_over(stage.database, generate(), time, letters), time, letters, {})


async def name_everything(desk, stage, sing):
    """A project with all that can be written on it, some of it over an earlier text."""
    first = {field: sing(f"first {field}") for field in ("name", "description", "institution")}
    project = await desk.project(ADA, **first)
    later = {field: sing(field) for field in first} | {"description": sing("description", 150)}
    await projects.change(desk.office, ADA, project.id, ProjectChange(**later))
    stage.join(project.id, BEN, "member")
    await projects.invite(desk.office, ADA, project.id, f"{sing('invited')}@example.org", Role.MEMBER)
    key = await desk.key(project.id, ADA, name=sing("key"))
    await record(desk, project.id, key.id, sing("prompt"))
    return project.id


def texts(sing, which):
    return {field: sing(f"{which} {field}", 150) for field in TEXTS}


def appeal_everything(stage, project, sing, kept):
    """Back and forth to the grant that an appeal brings, which the operator ends."""
    first = stage.draft(project=project, **texts(sing, "first"))
    draft = stage.edit(first, **texts(sing, "research"))
    taken = stage.review(stage.submit(draft, reason=sing("submission")))
    for who, say in ((ADA, sing("owner's comment")), (BEN, sing("member's comment", 700))):
        stage.comment(taken, who, say)
    stage.comment(taken, RIA, kept("reviewer's comment"))
    asked = stage.ask_changes(stage.show(taken), reason=kept("changes"))
    again = stage.submit(asked, reason=sing("second submission"))
    declined = stage.decline(stage.review(again), reason=kept("refusal"))
    appeal = stage.appeal(declined, reason=sing("appeal"))
    few = {"quotas": Quotas(tokens_total=5), "reason": kept("approval")}
    approved = stage.approve(stage.review(appeal, ROB), ROB, **few)
    stage.end(approved.grant, OPERATOR, kept("operator's end"))


async def apply_for_everything(desk, stage, project, sing, kept):
    appeal_everything(stage, project, sing, kept)
    extended = stage.approved(project=project, tier="extended", **texts(sing, "extended"))
    stage.progress(extended.grant, report=sing("report", 700))
    stage.end(extended.grant, ADA, sing("own end"))
    withdrawn = stage.draft(project=project, models=[kept("model")], scopes=[kept("scope")])
    stage.withdraw(withdrawn, reason=sing("withdrawal"))
    for open_at_the_end in (stage.draft(project=project), stage.draft(project=project)):
        stage.submit(open_at_the_end, reason=sing("last submission"))
    for archived in (True, False):
        await projects.change(desk.office, ADA, project, ProjectChange(archived=archived))


async def test_none_of_the_words_of_its_people_are_left(desk, stage, tmp_path):
    theirs, others = Canaries(), Canaries()
    project = await name_everything(desk, stage, theirs.sing)
    await apply_for_everything(desk, stage, project, theirs.sing, others.sing)
    stage.database.scrub()  # as after a while: what is in the log has come into the file
    unseen = {"prompt"} | {where for where in theirs.words if where.startswith("first ")}
    assert in_tables(stage, theirs).keys() == theirs.words.keys() - unseen

    await rights.delete_project(desk.office, ADA, project, theirs.sing("name"))

    assert in_tables(stage, theirs) == {}
    said = {"application_events.reason", "trail.reason"}
    assert in_tables(stage, others) == {
        "reviewer's comment": said,
        "changes": said,
        "refusal": said,
        "approval": said,
        "operator's end": {"grant_changes.reason", "trail.reason"},
        "model": {"applications.asked"},
        "scope": {"applications.asked"},
    }
    assert stage.database.read_sync(lambda connection: list(trail.broken(connection))) == []
    if not databases.ON_POSTGRESQL:
        assert in_files(Path(tmp_path), others) == others.words.keys()
        assert in_files(Path(tmp_path), theirs) == set()


async def test_what_was_asked_for_and_how_it_ended_stays(desk, stage):
    stage.progress(stage.approved(tier="extended").grant, report="half of it")
    stage.submitted()
    await rights.delete_project(desk.office, ADA, stage.project, "A project")
    asked = [Asked.model_validate_json(row.asked) for row in stage.look(select(applications.c.asked))]
    assert {each.tier for each in asked} == {"extended", "research"}
    assert {row.state for row in stage.look(select(applications.c.state))} == {"approved", "withdrawn"}


async def test_what_the_server_itself_gave_as_a_reason_stays(desk, stage):
    application = stage.submitted()
    for archived in (True, False):
        await projects.change(desk.office, ADA, stage.project, ProjectChange(archived=archived))
    await rights.delete_project(desk.office, ADA, stage.project, "A project")
    reasons = [event.reason for event in stage.events(application)[-3:]]
    assert reasons == [
        "Its project is archived.",
        "Nothing stands against it any more.",
        "Its project was deleted.",
    ]
    assert [entry.reason for entry in stage.trail() if entry.subject == application.id][-3:] == reasons


async def test_a_deletion_that_was_cut_off_has_forgotten_already_and_nobody_writes_anew(desk, stage):
    grant, application = stage.approved(tier="open").grant, stage.submitted()
    await projects.change(desk.office, ADA, stage.project, ProjectChange(description="A canary."))

    async def fail(_project_id):
        for who in (ADA, OLI):
            with pytest.raises(NotFound):
                stage.end(grant, who, "a canary")
        raise StorageError("the log is being read")

    stage.join(stage.project, OLI, "admin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.office.records, "shred", fail)
        with pytest.raises(StorageError):
            await rights.delete_project(desk.office, ADA, stage.project, "A project")
    assert stage.look(select(metadata.tables["projects"].c.description).distinct()) == [("",)]
    await rights.delete_project(desk.office, ADA, stage.project, "A project")
    assert stage.events(application)[-1].reason == "Its project was deleted."
    assert stage.look(select(metadata.tables["members"])) == []


@pytest.mark.parametrize(
    ("who", "role", "kept"),
    [
        (OPERATOR, None, True),
        (OLI, None, True),
        (OLI, "member", True),
        (OLI, "admin", False),
        (ADA, None, False),
    ],
)
async def test_why_a_grant_was_ended_stays_where_an_operator_said_it(desk, stage, who, role, kept):
    stage.database.write_sync(make_operator)
    if role is not None:
        stage.join(stage.project, OLI, role)
    stage.end(stage.approved(tier="open").grant, who, "enough of it")
    reason = "enough of it" if kept else None
    assert (stage.trail()[-1].action, stage.trail()[-1].reason) == ("grant.end", reason)
    await rights.delete_project(desk.office, ADA, stage.project, "A project")
    assert stage.look(select(grant_changes.c.reason)) == [(reason,)]


def make_operator(connection):
    connection.execute(insert(people).values(id=OLI.person_id, name="", created=START))
    given = {"role": "operator", "given_by": OPERATOR.person_id, "given": START}
    connection.execute(insert(person_roles).values(person_id=OLI.person_id, **given))


def test_the_trail_says_where_the_words_of_researchers_are_to_be_read(stage):
    application = stage.submit(stage.draft(), reason="we are ready")
    entry = stage.trail()[-1]
    assert (entry.action, entry.subject, entry.reason) == ("application.submit", application.id, None)
    named = json.loads(entry.details)["event"]
    (event,) = [event for event in stage.show(application).events if event.number == named]
    assert (event.action, event.reason) == ("submit", "we are ready")

    grant = stage.progress(stage.approved(tier="extended").grant, report="half of it")
    entry = stage.trail()[-1]
    assert (entry.action, entry.subject, entry.reason) == ("grant.progress", grant.id, None)
    named = json.loads(entry.details)["change"]
    (change,) = [change for change in grant.changes if change.number == named]
    assert (change.kind, change.reason) == ("progress", "half of it")
