"""Projects and their members: never without an owner, and nobody commands whom they may not."""

import pytest
from sqlalchemy import select

from tests.offices import ADA, BOB, EVE, INSTANT, OPERATOR
from transom.access.projects import members as rows
from transom.access.projects.embargo import Choice, history
from transom.access.projects.roles import Role
from transom.access.rights.trail import entries
from transom.errors import Conflict, Forbidden, InvalidRequest, NotFound, Suspended
from transom.schema.projects import ProjectChange
from transom.services.people import projects, suspensions
from transom.storage.tables import keys, members

pytestmark = pytest.mark.anyio


async def roles(desk, project_id, person=ADA):
    return {
        each.person_id: each.role for each in await projects.list_members(desk.office, person, project_id)
    }


def actions(desk):
    return [each.entry.action for each in reversed(desk.database.read_sync(entries))]


class TestOwners:
    async def test_the_last_owner_cannot_leave(self, desk):
        project = await desk.project()
        await desk.join(project.id, BOB, "admin")
        with pytest.raises(Conflict, match="never without an owner"):
            await projects.remove(desk.office, ADA, project.id, ADA.person_id)
        assert await roles(desk, project.id) == {ADA.person_id: "owner", BOB.person_id: "admin"}

    async def test_the_last_owner_cannot_step_down(self, desk):
        project = await desk.project()
        with pytest.raises(Conflict):
            await projects.change_role(desk.office, ADA, project.id, ADA.person_id, Role.ADMIN)

    async def test_one_of_two_owners_can_leave_and_the_other_then_not(self, desk):
        project = await desk.project()
        await desk.join(project.id, BOB)
        await projects.change_role(desk.office, ADA, project.id, BOB.person_id, Role.OWNER)
        await projects.remove(desk.office, ADA, project.id, ADA.person_id)
        with pytest.raises(Conflict):
            await projects.remove(desk.office, BOB, project.id, BOB.person_id)

    async def test_two_owners_who_leave_at_the_same_time_leave_one(self, desk):
        import asyncio

        project = await desk.project()
        await desk.join(project.id, BOB, "owner")
        left = await asyncio.gather(
            *(projects.remove(desk.office, each, project.id, each.person_id) for each in (ADA, BOB)),
            return_exceptions=True,
        )
        assert sorted(type(each) for each in left if each is not None) == [Conflict]

    async def test_ownership_is_handed_on(self, desk):
        project = await desk.project()
        await desk.join(project.id, BOB)
        await projects.transfer(desk.office, ADA, project.id, BOB.person_id)
        assert await roles(desk, project.id) == {ADA.person_id: "admin", BOB.person_id: "owner"}
        with pytest.raises(Forbidden):
            await projects.transfer(desk.office, ADA, project.id, ADA.person_id)

    @pytest.mark.parametrize(("to", "error"), [(ADA, InvalidRequest), (EVE, NotFound)])
    async def test_ownership_is_handed_to_another_member_only(self, desk, to, error):
        project = await desk.project()
        with pytest.raises(error):
            await projects.transfer(desk.office, ADA, project.id, to.person_id)

    async def test_who_deletes_their_account_hands_their_projects_on_first(self, desk):
        project = await desk.project()
        await desk.join(project.id, BOB)

        def leave(person):
            desk.database.write_sync(lambda c: rows.farewell(c, person.person_id, desk.time.now))

        with pytest.raises(Conflict, match=project.id):
            leave(ADA)
        leave(BOB)
        assert await roles(desk, project.id) == {ADA.person_id: "owner"}


class TestMembers:
    @pytest.fixture
    async def project(self, desk):
        made = await desk.project()
        await desk.join(made.id, BOB, "admin")
        await desk.join(made.id, EVE, "admin")
        return made.id

    async def test_an_admin_removes_neither_owner_nor_admin(self, desk, project):
        for person in (ADA, EVE):
            with pytest.raises(Forbidden, match="owner"):
                await projects.remove(desk.office, BOB, project, person.person_id)

    async def test_an_admin_gives_nobody_a_role(self, desk, project):
        with pytest.raises(Forbidden):
            await projects.change_role(desk.office, BOB, project, BOB.person_id, Role.OWNER)

    async def test_nobody_is_a_member_twice(self, desk, project):
        with pytest.raises(Conflict, match="already"):
            await desk.join(project, BOB)

    async def test_who_is_no_member_is_not_removed(self, desk, project):
        with pytest.raises(NotFound):
            await projects.remove(desk.office, ADA, project, "per_nobody")

    async def test_with_a_member_go_the_keys_they_had_there_and_no_others(self, desk, project):
        here, elsewhere = await desk.key(project, BOB), await desk.key((await desk.project(BOB)).id, BOB)
        others = await desk.key(project, ADA)
        await projects.remove(desk.office, ADA, project, BOB.person_id)
        query = select(keys.c.id).where(keys.c.revoked.is_not(None))
        assert desk.database.read_sync(lambda c: c.execute(query).scalars().all()) == [here.id]
        assert {elsewhere.id, others.id}.isdisjoint({here.id})

    async def test_it_is_all_in_the_trail(self, desk, project):
        await projects.change_role(desk.office, ADA, project, BOB.person_id, Role.MEMBER)
        await projects.change_role(desk.office, ADA, project, BOB.person_id, Role.MEMBER)  # changes nothing
        await projects.remove(desk.office, ADA, project, BOB.person_id)
        await projects.remove(desk.office, EVE, project, EVE.person_id)
        assert actions(desk) == ["project.create", "member.change", "member.remove", "member.leave"]
        (change,) = [e.entry for e in desk.database.read_sync(entries) if e.entry.action == "member.change"]
        assert (change.actor, change.person_id) == (ADA.person_id, BOB.person_id)
        assert change.details == {"role": "member", "before": "admin"}


class TestProjects:
    async def test_a_person_has_several_and_sees_no_others(self, desk):
        first = await desk.project(name="First", institution="Observatory", embargo_months=6)
        desk.time.forward(seconds=1)
        second = await desk.project(name="Second")
        await desk.project(BOB)
        assert await projects.list_own(desk.office, ADA) == [first, second]
        assert (first.role, first.institution, first.embargo_months) == ("owner", "Observatory", 6)
        assert first.id.startswith("prj_")
        assert len(first.id) == 26

    async def test_what_is_not_given_stays(self, desk):
        project = await desk.project(description="Long", institution="There", embargo_months=3)
        changed = await projects.change(desk.office, ADA, project.id, ProjectChange(name="Mirrors"))
        assert changed == project.model_copy(update={"name": "Mirrors"})

    async def test_a_text_can_be_emptied(self, desk):
        project = await desk.project(description="Long")
        changed = await projects.change(desk.office, ADA, project.id, ProjectChange(description=""))
        assert changed.description == ""

    async def test_a_change_is_whole_or_not_at_all(self, desk):
        project = await desk.project()
        await desk.join(project.id, BOB, "admin")
        with pytest.raises(Forbidden):
            await projects.change(desk.office, BOB, project.id, ProjectChange(name="Mirrors", archived=True))
        assert (await projects.show(desk.office, ADA, project.id)).name == "Lenses"

    async def test_choices_of_the_embargo_are_noted_and_kept(self, desk):
        project = await desk.project(embargo_months=12)
        start = desk.time.now
        for months in (12, 3, 6):
            desk.time.forward(days=1)
            change = ProjectChange(embargo_months=months)
            assert (await projects.change(desk.office, ADA, project.id, change)).embargo_months == months
        kept = desk.database.read_sync(lambda c: history(c, project.id))
        assert kept == [Choice(start, 12), Choice(start.replace(month=2, day=2), 3), Choice(desk.time.now, 6)]
        noted = [
            e.entry.details for e in desk.database.read_sync(entries) if e.entry.action == "project.embargo"
        ]
        assert noted == [{"months": 6, "before": 3}, {"months": 3, "before": 12}]

    async def test_a_clock_that_steps_back_keeps_choices_in_order(self, desk):
        project = await desk.project(embargo_months=12)
        desk.time.now -= INSTANT
        await projects.change(desk.office, ADA, project.id, ProjectChange(embargo_months=0))
        first, second = desk.database.read_sync(lambda c: history(c, project.id))
        assert first.since == second.since

    async def test_archiving_is_undone_by_its_owner(self, desk):
        project = await desk.project()
        archived = await projects.change(desk.office, ADA, project.id, ProjectChange(archived=True))
        assert archived.archived is not None
        assert await projects.change(desk.office, ADA, project.id, ProjectChange(archived=True)) == archived
        with pytest.raises(Conflict, match="archived"):
            await projects.change(desk.office, ADA, project.id, ProjectChange(name="Mirrors"))
        both = ProjectChange(name="Mirrors", archived=False)
        opened = await projects.change(desk.office, ADA, project.id, both)
        assert (opened.name, opened.archived) == ("Mirrors", None)
        assert actions(desk) == ["project.create", "project.archive", "project.reopen", "project.edit"]

    async def test_a_suspended_person_makes_no_project(self, desk):
        await desk.project()
        await suspensions.suspend(desk.office, OPERATOR, f"person:{ADA.person_id}", "It was misused.")
        with pytest.raises(Suspended, match="misused"):
            await desk.project()

    async def test_every_project_has_an_owner_in_the_table(self, desk):
        await desk.project()
        rows = desk.database.read_sync(lambda c: c.execute(select(members)).all())
        assert [(row.person_id, row.role, row.joined) for row in rows] == [
            (ADA.person_id, "owner", desk.time.now)
        ]
