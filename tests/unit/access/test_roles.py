"""The table of roles, written out once more: a change of it is a decision, made here."""

import itertools

import pytest

from tests.offices import ADA, BOB, EVE, OPERATOR
from transom.access.projects.projects import require
from transom.access.projects.roles import COMMANDS, RULES, Act, Role, may
from transom.errors import Conflict, Forbidden, NotFound, Suspended
from transom.schema.projects import ProjectChange
from transom.services.people import projects, suspensions

pytestmark = pytest.mark.anyio

OWN, ADM, MEM = Role.OWNER, Role.ADMIN, Role.MEMBER

EXPECTED = {
    # who, also while suspended, also while archived
    "project.read": ({OWN, ADM, MEM}, True, True),
    "project.edit": ({OWN, ADM}, False, False),
    "project.archive": ({OWN}, False, True),
    "project.transfer": ({OWN}, False, True),
    "project.delete": ({OWN}, False, True),
    "project.export": ({OWN, ADM}, True, True),
    "member.invite": ({OWN, ADM}, False, False),
    "member.change": ({OWN}, False, True),
    "member.remove": ({OWN, ADM}, False, True),
    "member.leave": ({OWN, ADM, MEM}, True, True),
    "key.create": ({OWN, ADM, MEM}, False, False),
    "key.revoke": ({OWN, ADM, MEM}, True, True),
    "key.list": ({OWN, ADM}, True, True),
    "key.revoke_any": ({OWN, ADM}, True, True),
}


def test_the_table_is_this_one():
    found = {str(act): (set(rule.roles), rule.suspended, rule.archived) for act, rule in RULES.items()}
    assert found == EXPECTED
    assert RULES.keys() == set(Act)


def test_an_owner_commands_everybody_an_admin_members_and_a_member_nobody():
    assert {OWN: {OWN, ADM, MEM}, ADM: {MEM}, MEM: set()} == COMMANDS


@pytest.fixture
async def project(desk):
    """Ada owns it, Bob is its admin, Eve a member."""
    made = await desk.project()
    await desk.join(made.id, BOB, "admin")
    await desk.join(made.id, EVE, "member")
    return made.id


PEOPLE = {OWN: ADA, ADM: BOB, MEM: EVE}


def verdict(desk, project_id, act, person):
    try:
        return desk.database.read_sync(lambda c: require(c, project_id, act, by=person.person_id))
    except (NotFound, Forbidden, Conflict) as error:
        return type(error)


@pytest.mark.parametrize(("act", "role"), list(itertools.product(Act, Role)))
async def test_each_role_may_what_the_table_says(desk, project, act, role):
    allowed = role in EXPECTED[act][0]
    assert may(role, act) == allowed
    assert verdict(desk, project, act, PEOPLE[role]) == (role if allowed else Forbidden)


@pytest.mark.parametrize("act", list(Act))
async def test_who_is_no_member_learns_nothing(desk, project, act):
    mine = await desk.project(BOB)
    with pytest.raises(NotFound) as absent:
        desk.database.read_sync(lambda c: require(c, "prj_" + "0" * 22, act, by=ADA.person_id))
    with pytest.raises(NotFound) as foreign:
        desk.database.read_sync(lambda c: require(c, mine.id, act, by=ADA.person_id))
    assert foreign.value.message.replace(mine.id, "") == absent.value.message.replace("prj_" + "0" * 22, "")


@pytest.mark.parametrize("subject", ["project", "person"])
@pytest.mark.parametrize("act", list(Act))
async def test_a_suspension_leaves_what_is_a_right(desk, project, act, subject):
    name = project if subject == "project" else ADA.person_id
    await suspensions.suspend(desk.office, OPERATOR, f"{subject}:{name}", "It was misused.")
    allowed = EXPECTED[act][1]
    assert verdict(desk, project, act, ADA) == (OWN if allowed else Suspended)


@pytest.mark.parametrize("act", list(Act))
async def test_an_archived_project_takes_nothing_new(desk, project, act):
    await projects.change(desk.office, ADA, project, ProjectChange(archived=True))
    allowed = EXPECTED[act][2]
    assert verdict(desk, project, act, ADA) == (OWN if allowed else Conflict)
