"""Suspensions: a person decides, gives a reason, and writes to whom it affects. Nothing else suspends."""

import ast
from pathlib import Path

import pytest

import transom
from tests.offices import ADA, BOB, EVE, OPERATOR
from transom.access.people.persons import THE_SERVER, PersonCaller
from transom.access.rights import suspensions as rows
from transom.access.rights.trail import SYSTEM, entries
from transom.errors import Conflict, Forbidden, InvalidRequest, NotFound
from transom.services.people import projects, suspensions

pytestmark = pytest.mark.anyio

REASON = "It was found on a public page."


@pytest.fixture
async def project(desk):
    made = await desk.project()
    await desk.join(made.id, BOB)
    return made.id


@pytest.mark.parametrize("reason", ["", " ", "\n\t ", "x" * 2001])
async def test_there_is_none_without_a_reason_that_can_be_read(desk, project, reason):
    for act in (suspensions.suspend, suspensions.lift):
        with pytest.raises(InvalidRequest) as refused:
            await act(desk.office, OPERATOR, f"project:{project}", reason)
        assert refused.value.param == "reason"
    assert (await projects.show(desk.office, ADA, project)).suspensions == ()


@pytest.mark.parametrize("who", [ADA, THE_SERVER, PersonCaller("per_x", frozenset({"reviewer"}))])
async def test_only_who_acts_for_the_operator_suspends(desk, project, who):
    for act in (suspensions.suspend, suspensions.lift):
        with pytest.raises(Forbidden):
            await act(desk.office, who, f"project:{project}", REASON)


async def test_the_server_itself_never_suspends(desk, project):
    def write(connection):
        rows.suspend(connection, f"project:{project}", actor=SYSTEM, reason=REASON, now=desk.time.now)

    with pytest.raises(ValueError, match="only a person"):
        desk.database.write_sync(write)
    assert (await projects.show(desk.office, ADA, project)).suspensions == ()


def test_nothing_in_the_source_suspends_but_the_operators_command():
    """No limit, no schedule and no detector calls it."""
    root = Path(transom.__file__).parent
    callers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "suspend":
                callers.add(path.relative_to(root).as_posix())
    assert callers == {"cli/admin_rights.py", "services/people/suspensions.py"}


@pytest.mark.parametrize(
    "subject", ["", "local", "key:", "project:../x", "grant:1", "key:x key:y", "person:" + "x" * 65]
)
async def test_what_cannot_be_suspended_is_refused(desk, project, subject):
    with pytest.raises(InvalidRequest) as refused:
        await suspensions.suspend(desk.office, OPERATOR, subject, REASON)
    assert refused.value.param == "subject"


@pytest.mark.parametrize("subject", ["key:nobody", "person:per_nobody", "project:prj_nobody"])
async def test_what_is_not_there_is_not_suspended(desk, project, subject):
    with pytest.raises(NotFound):
        await suspensions.suspend(desk.office, OPERATOR, subject, REASON)


async def test_twice_is_a_conflict_and_so_is_lifting_what_is_not_suspended(desk, project):
    subject = f"project:{project}"
    with pytest.raises(Conflict):
        await suspensions.lift(desk.office, OPERATOR, subject, REASON)
    await suspensions.suspend(desk.office, OPERATOR, subject, REASON)
    with pytest.raises(Conflict):
        await suspensions.suspend(desk.office, OPERATOR, subject, "Another reason.")
    (shown,) = (await projects.show(desk.office, ADA, project)).suspensions
    assert shown.reason == REASON


async def test_whom_it_affects_gets_a_letter_with_the_reason(desk, project):
    key = await desk.key(project, BOB)
    for subject, addresses in (
        (f"key:{key.id}", ["bob@example.org"]),
        (f"person:{ADA.person_id}", ["ada@example.org"]),
        (f"project:{project}", ["ada@example.org", "bob@example.org"]),
    ):
        for act in (suspensions.suspend, suspensions.lift):
            desk.letters.kept.clear()
            told = await act(desk.office, OPERATOR, subject, REASON)
            assert sorted(letter.to for letter in desk.letters.kept) == addresses
            assert all(REASON in letter.text for letter in desk.letters.kept)
            assert told.missed == ()


async def test_it_stands_where_no_letter_can_be_sent_and_says_who_was_missed(desk, project):
    await desk.join(project, PersonCaller("per_without_an_address"))
    told = await suspensions.suspend(desk.office, OPERATOR, f"project:{project}", REASON)
    assert told.missed == ("per_without_an_address",)
    assert set(told.reached) == {ADA.person_id, BOB.person_id}
    desk.letters.broken = True
    told = await suspensions.suspend(desk.office, OPERATOR, f"person:{ADA.person_id}", REASON)
    assert (told.reached, told.missed) == ((), (ADA.person_id,))
    assert len((await projects.show(desk.office, ADA, project)).suspensions) == 2


async def test_the_researcher_sees_what_is_suspended_of_theirs_and_nothing_of_others(desk, project):
    mine, theirs = await desk.key(project), await desk.key(project, BOB)
    subjects = [f"key:{mine.id}", f"person:{ADA.person_id}", f"project:{project}"]
    for subject in (*subjects, f"key:{theirs.id}"):
        await suspensions.suspend(desk.office, OPERATOR, subject, REASON)
    shown = (await projects.show(desk.office, ADA, project)).suspensions
    assert [each.subject for each in shown] == sorted(subjects)
    assert {each.reason for each in shown} == {REASON}


async def test_both_are_in_the_trail_where_whom_it_affects_reads_them(desk, project):
    key = await desk.key(project, BOB)
    await suspensions.suspend(desk.office, OPERATOR, f"key:{key.id}", f"  {REASON}\n")
    await suspensions.lift(desk.office, OPERATOR, f"key:{key.id}", "It was another one.")
    lifted, suspended = (e.entry for e in desk.database.read_sync(lambda c: entries(c, limit=2)))
    assert (suspended.action, suspended.reason, suspended.actor) == ("key.suspend", REASON, "operator:root")
    assert (lifted.action, lifted.reason) == ("key.lift", "It was another one.")
    assert (suspended.person_id, suspended.project_id, suspended.subject) == (BOB.person_id, project, key.id)
    about_eve = desk.database.read_sync(lambda c: entries(c, person_id=EVE.person_id))
    assert about_eve == []
