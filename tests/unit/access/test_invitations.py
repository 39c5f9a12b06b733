"""Invitations: each works once, for whoever owns the address, and tells nobody who has an account."""

import asyncio
import re

import pytest
from sqlalchemy import select

from tests.offices import ADA, BOB, EVE, INSTANT, OPERATOR
from transom.access.credentials.keys import mint
from transom.access.people.persons import PersonCaller
from transom.access.projects.invitations import INVITATION, LIFETIME, MAX_OPEN
from transom.access.projects.roles import Role
from transom.access.rights.trail import entries
from transom.errors import ConfigurationError, Conflict, Forbidden, InvalidRequest, NotFound, Suspended
from transom.services.people import projects, suspensions
from transom.storage.tables import invitations

pytestmark = pytest.mark.anyio


@pytest.fixture
async def project(desk):
    return (await desk.project()).id


async def invite(desk, project_id, email="bob@example.org", role=Role.MEMBER, by=ADA):
    """The secret in the letter."""
    await projects.invite(desk.office, by, project_id, email, role)
    (secret,) = re.findall(r"ti_\w+", desk.letters.kept[-1].text)
    return secret


async def refusal(desk, person, secret, answer=projects.accept):
    with pytest.raises(NotFound) as refused:
        await answer(desk.office, person, secret)
    return refused.value.message


async def test_one_works_once(desk, project):
    secret = await invite(desk, project)
    joined = await projects.accept(desk.office, BOB, secret)
    assert (joined.id, joined.role) == (project, "member")
    used = await refusal(desk, BOB, secret)
    assert used == await refusal(desk, EVE, secret)


async def test_one_that_two_accept_at_the_same_moment_works_once(desk, project):
    secret = await invite(desk, project)
    answers = await asyncio.gather(
        *(projects.accept(desk.office, BOB, secret) for _ in range(5)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in answers) == ["NotFound"] * 4 + ["ProjectView"]


async def test_another_persons_does_not_work_and_stays_good(desk, project):
    secret = await invite(desk, project)
    await refusal(desk, EVE, secret)
    await refusal(desk, EVE, secret, projects.decline)
    await refusal(desk, PersonCaller("per_without_an_address"), secret)
    assert (await projects.accept(desk.office, BOB, secret)).id == project


async def test_one_works_until_it_expires(desk, project):
    first, second = await invite(desk, project), await invite(desk, project)
    desk.time.now += LIFETIME - INSTANT
    await projects.decline(desk.office, BOB, first)
    desk.time.now += INSTANT
    await refusal(desk, BOB, second)


async def test_one_that_was_taken_back_or_declined_does_not_work(desk, project):
    secret = await invite(desk, project)
    (open_one,) = await projects.list_invitations(desk.office, ADA, project)
    await projects.revoke_invitation(desk.office, ADA, project, open_one.id)
    await refusal(desk, BOB, secret)
    with pytest.raises(NotFound):
        await projects.revoke_invitation(desk.office, ADA, project, open_one.id)
    secret = await invite(desk, project)
    await projects.decline(desk.office, BOB, secret)
    await refusal(desk, BOB, secret)


async def test_every_secret_that_does_not_work_is_refused_in_the_same_words(desk, project):
    secret = await invite(desk, project)
    wrong = mint(INVITATION).text
    half = INVITATION.prefix + "_" + secret.split("_")[1] + "_" + wrong.split("_")[2]
    told = {
        await refusal(desk, BOB, text) for text in (wrong, half, "", "ti_", secret[:-1], "tr_" + secret[3:])
    }
    assert told == {await refusal(desk, EVE, secret)}


async def test_another_projects_admin_does_not_take_it_back(desk, project):
    await invite(desk, project)
    (open_one,) = await projects.list_invitations(desk.office, ADA, project)
    other = await desk.project(EVE)
    with pytest.raises(NotFound):
        await projects.revoke_invitation(desk.office, EVE, other.id, open_one.id)


async def test_inviting_is_the_same_for_known_and_unknown_addresses(desk, project):
    known = await projects.invite(desk.office, ADA, project, "bob@example.org", Role.MEMBER)
    unknown = await projects.invite(desk.office, ADA, project, "nobody@example.org", Role.MEMBER)
    own = {"id", "email"}
    assert known.model_dump(exclude=own) == unknown.model_dump(exclude=own)
    mine, other = (re.sub(r"ti_\w+|\w+@example\.org", "", letter.text) for letter in desk.letters.kept)
    assert mine == other


async def test_an_address_has_one_spelling(desk, project):
    secret = await invite(desk, project, " Bob@Example.ORG ")
    assert desk.letters.kept[0].to == "bob@example.org"
    await projects.accept(desk.office, BOB, secret)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "bob",
        "@example.org",
        "bob@",
        "a@b@c",
        "bob@example.org\r\nBcc: eve@example.org",
        "b b@example.org",
        "bob@example.org,eve@example.org",
        "b\u00f6b@example.org",
        '"bob"@example.org',
        "x" * 250 + "@example.org",
    ],
)
async def test_what_is_no_address_gets_no_letter(desk, project, email):
    with pytest.raises(InvalidRequest) as refused:
        await projects.invite(desk.office, ADA, project, email, Role.MEMBER)
    assert refused.value.param == "email"
    assert desk.letters.kept == []


async def test_an_admin_invites_members_and_no_admins(desk, project):
    await desk.join(project, BOB, "admin")
    await invite(desk, project, "eve@example.org", by=BOB)
    for role in (Role.ADMIN, Role.OWNER):
        with pytest.raises(Forbidden, match="owner"):
            await projects.invite(desk.office, BOB, project, "eve@example.org", role)


async def test_a_member_accepts_no_second_time(desk, project):
    first, second = await invite(desk, project), await invite(desk, project)
    await projects.accept(desk.office, BOB, first)
    with pytest.raises(Conflict):
        await projects.accept(desk.office, BOB, second)


async def test_nobody_joins_what_is_suspended(desk, project):
    secret = await invite(desk, project)
    await suspensions.suspend(desk.office, OPERATOR, f"project:{project}", "It was misused.")
    with pytest.raises(Suspended):
        await projects.accept(desk.office, BOB, secret)
    await suspensions.lift(desk.office, OPERATOR, f"project:{project}", "It was a mistake.")
    await projects.accept(desk.office, BOB, secret)


async def test_a_letter_that_cannot_be_sent_leaves_no_invitation(desk, project):
    desk.letters.broken = True
    with pytest.raises(ConfigurationError):
        await projects.invite(desk.office, ADA, project, "bob@example.org", Role.MEMBER)
    assert await projects.list_invitations(desk.office, ADA, project) == []


async def test_open_invitations_are_bounded(desk, project, monkeypatch):
    monkeypatch.setattr("transom.access.projects.invitations.MAX_OPEN", 2)
    assert MAX_OPEN > 2
    for _ in range(2):
        await invite(desk, project)
    with pytest.raises(Conflict, match="2 invitations"):
        await invite(desk, project)
    desk.time.now += LIFETIME
    await invite(desk, project)


async def test_secret_and_address_stand_nowhere_but_in_letter_and_table(desk, project, tmp_path):
    secret = await invite(desk, project)
    await projects.accept(desk.office, BOB, secret)
    for noted in desk.database.read_sync(entries):
        assert "bob@example.org" not in repr(noted)
        assert secret not in repr(noted)
    row = desk.database.read_sync(lambda c: c.execute(select(invitations)).mappings().one())
    assert secret.split("_")[2] not in repr(dict(row))
    assert row["outcome"] == "accepted"
