"""A researcher's rights: to read the trail, to take everything along, to delete; and to know who looked."""

import asyncio
import json

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import select

from tests.offices import ADA, BOB, EVE, OPERATOR, record
from transom.access.people.persons import PersonCaller
from transom.access.projects.roles import Role
from transom.access.rights import export, trail
from transom.errors import Forbidden, InvalidRequest, NotFound, StorageError, Suspended, Unauthenticated
from transom.records.audit import find_gaps
from transom.services.people import projects, rights, suspensions, terms
from transom.storage.tables import keys, members, records
from transom.storage.tables import projects as project_table

pytestmark = pytest.mark.anyio

REASON = "The researcher asked why it failed."
CANARY = "a light in the window"


@pytest.fixture
async def project(desk):
    return (await desk.project()).id


@pytest.fixture
async def key(desk, project):
    return await desk.key(project)


async def lines(desk, person, project_id):
    stream = await rights.export_project(desk.office, person, project_id)
    return [json.loads(line) async for line in stream]


VECTOR = save({"canary_name": np.arange(3, dtype=np.float32)})


async def upload(desk, project_id, content=VECTOR):
    async def stream():
        yield content

    artifact, _ = await desk.office.artifacts.put(project_id, stream())
    return artifact


class TestOperatorsLook:
    @pytest.fixture
    async def made(self, desk, project, key):
        return await record(desk, project, key.id, CANARY)

    @pytest.mark.parametrize("reason", ["", "  \n"])
    async def test_without_a_reason_nothing_is_shown(self, desk, made, reason):
        with pytest.raises(InvalidRequest) as refused:
            await rights.read_record(desk.office, OPERATOR, made.id, reason)
        assert refused.value.param == "reason"

    @pytest.mark.parametrize("who", [ADA, EVE, PersonCaller("per_x", frozenset({"reviewer"}))])
    async def test_only_who_acts_for_the_operator_reads_what_is_not_theirs(self, desk, made, who):
        with pytest.raises(Forbidden):
            await rights.read_record(desk.office, who, made.id, REASON)

    async def test_a_record_that_is_not_there_is_not_noted(self, desk, made):
        before = len(desk.database.read_sync(trail.entries))
        with pytest.raises(NotFound):
            await rights.read_record(desk.office, OPERATOR, "rec_nothing", REASON)
        assert len(desk.database.read_sync(trail.entries)) == before

    async def test_the_researcher_reads_who_looked_and_why(self, desk, project, made):
        view = await rights.read_record(desk.office, OPERATOR, made.id, f" {REASON} ")
        assert CANARY in json.dumps(view.openings)
        page = await rights.read_trail(desk.office, ADA, None, 1)
        (seen,) = page.data
        assert (seen.action, seen.actor, seen.subject) == ("record.read", "operator:root", made.id)
        assert (seen.reason, seen.project_id, seen.person_id) == (REASON, project, ADA.person_id)

    async def test_it_is_noted_before_it_is_read(self, desk, made, monkeypatch):
        async def fail(*_):
            noted = desk.database.read_sync(trail.entries)[0].entry
            assert noted.action == "record.read"
            raise StorageError("the disk is away")

        monkeypatch.setattr(desk.office.records, "get", fail)
        with pytest.raises(StorageError):
            await rights.read_record(desk.office, OPERATOR, made.id, REASON)

    async def test_what_cannot_be_noted_is_not_shown(self, desk, made, monkeypatch):
        def fail(*_):
            raise StorageError("the disk is full")

        monkeypatch.setattr(trail, "note", fail)
        with pytest.raises(StorageError):
            await rights.read_record(desk.office, OPERATOR, made.id, REASON)

    async def test_a_record_without_a_key_is_about_its_project_alone(self, desk, project):
        made = await record(desk, project, None, CANARY)
        await rights.read_record(desk.office, OPERATOR, made.id, REASON)
        assert desk.database.read_sync(trail.entries)[0].entry.person_id is None


class TestTrail:
    async def test_it_is_read_in_pages(self, desk, project):
        for _ in range(5):
            await desk.key(project)
        first = await rights.read_trail(desk.office, ADA, None, 4)
        second = await rights.read_trail(desk.office, ADA, first.before, 4)
        assert [each.number for each in (*first.data, *second.data)] == [6, 5, 4, 3, 2, 1]
        assert (first.before, second.before) == (3, None)

    async def test_a_page_that_ends_with_the_last_entry_says_so(self, desk, project):
        assert (await rights.read_trail(desk.office, ADA, None, 1)).before is None

    async def test_nobody_reads_of_projects_that_they_are_not_in(self, desk, project, key):
        assert (await rights.read_trail(desk.office, EVE, None, 100)).data == ()
        await desk.join(project, EVE)
        assert len((await rights.read_trail(desk.office, EVE, None, 100)).data) == 2
        await projects.remove(desk.office, EVE, project, EVE.person_id)
        (left,) = (await rights.read_trail(desk.office, EVE, None, 100)).data
        assert left.action == "member.leave"


class TestExport:
    async def test_a_member_and_a_stranger_take_nothing_and_it_is_not_noted(self, desk, project):
        await desk.join(project, BOB)
        for person, error in ((BOB, Forbidden), (EVE, NotFound)):
            with pytest.raises(error):
                await rights.export_project(desk.office, person, project)
        assert len(desk.database.read_sync(trail.entries)) == 1

    async def test_it_holds_everything_of_the_project_and_nothing_of_others(self, desk, project, key):
        other = await desk.project(EVE)
        await record(desk, other.id, None, "somebody else's")
        await desk.join(project, BOB)
        await projects.invite(desk.office, ADA, project, "bob@example.org", Role.MEMBER)
        await suspensions.suspend(desk.office, OPERATOR, f"key:{key.id}", REASON)
        made = [await record(desk, project, key.id, f"{CANARY}, {number}") for number in range(120)]
        found = await lines(desk, ADA, project)
        kinds = [line["kind"] for line in found]
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "project": 1,
            "member": 2,
            "embargo": 1,
            "invitation": 1,
            "key": 1,
            "trail": 5,
            "suspension": 1,
            "record": 120,
        }
        exported = [line for line in found if line["kind"] == "record"]
        assert [line["id"] for line in exported] == [each.id for each in made]
        assert f"{CANARY}, 119" in exported[-1]["openings"]["request"]["json"]
        assert "somebody else" not in json.dumps(found)

    async def test_it_says_what_each_artifact_holds(self, desk, project):
        names = [
            (await upload(desk, project, save({"v": np.full(1, number, np.float32)}))).view().id
            for number in range(23)
        ]
        found = [line for line in await lines(desk, ADA, project) if line["kind"] == "artifact"]
        assert [line["id"] for line in found] == names[::-1]
        assert found[0]["tensors"] == {"v": {"dtype": "float32", "shape": [1]}}

    async def test_it_holds_no_secret_and_no_hash(self, desk, project, key):
        text = json.dumps(await lines(desk, ADA, project))
        assert key.key.split("_")[2] not in text
        assert '"mac"' not in text
        assert "pepper" not in text

    async def test_times_and_lists_are_written_as_everywhere(self, desk, project):
        await desk.key(project, scopes=["model:sample"])
        (row,) = [line for line in await lines(desk, ADA, project) if line["kind"] == "key"]
        assert (row["created"], row["scopes"]) == ("2026-01-31T12:00:00.000000Z", ["model:sample"])

    async def test_that_it_was_taken_is_noted_for_all_members(self, desk, project):
        await desk.join(project, BOB, "admin")
        await rights.export_project(desk.office, BOB, project)
        noted = (await rights.read_trail(desk.office, ADA, None, 1)).data[0]
        assert (noted.action, noted.actor) == ("project.export", BOB.person_id)

    async def test_a_suspended_project_is_taken_along_too(self, desk, project):
        await suspensions.suspend(desk.office, OPERATOR, f"project:{project}", REASON)
        assert (await lines(desk, ADA, project))[0]["kind"] == "project"

    async def test_a_person_takes_along_what_is_kept_about_them(self, desk, project, key):
        await terms.publish(desk.office, OPERATOR, "terms", "Be kind.")
        await terms.accept(desk.office, ADA, "terms-1")
        await suspensions.suspend(desk.office, OPERATOR, f"key:{key.id}", REASON)
        await desk.project(BOB)
        found = desk.database.read_sync(lambda c: export.person(c, ADA.person_id))
        assert {name: len(rows) for name, rows in found.items()} == {
            "memberships": 1,
            "keys": 1,
            "applications": 0,
            "invitations": 0,
            "acceptances": 1,
            "suspensions": 1,
            "trail": 3,
        }
        json.dumps(found)


class TestDeletion:
    async def test_it_needs_the_name_letter_by_letter_and_an_owner(self, desk, project):
        await desk.join(project, BOB, "admin")
        for confirm in ("", "lenses", "Lenses ", project):
            with pytest.raises(InvalidRequest) as refused:
                await rights.delete_project(desk.office, ADA, project, confirm)
            assert refused.value.param == "confirm"
        for person, error in ((BOB, Forbidden), (EVE, NotFound)):
            with pytest.raises(error):
                await rights.delete_project(desk.office, person, project, "Lenses")
        assert (await projects.show(desk.office, ADA, project)).name == "Lenses"

    async def test_what_is_suspended_is_not_deleted(self, desk, project):
        await suspensions.suspend(desk.office, OPERATOR, f"project:{project}", REASON)
        with pytest.raises(Suspended):
            await rights.delete_project(desk.office, ADA, project, "Lenses")

    async def test_prompts_answers_texts_members_and_invitations_are_gone(self, desk, project, key):
        await projects.invite(desk.office, ADA, project, "bob@example.org", Role.MEMBER)
        for _ in range(3):
            await record(desk, project, key.id, CANARY)
        gone = await rights.delete_project(desk.office, ADA, project, "Lenses")
        assert (gone.id, gone.openings) == (project, 3)
        assert await projects.list_own(desk.office, ADA) == []
        with pytest.raises(NotFound):
            await projects.show(desk.office, ADA, project)

        def everything(connection):
            row = connection.execute(select(project_table).where(project_table.c.id == project)).one()
            left = connection.execute(select(members).where(members.c.project_id == project)).all()
            openings = connection.execute(select(records.c.openings)).scalars().all()
            names = connection.execute(select(keys.c.name)).scalars().all()
            return row.name, row.description, left, set(openings), set(names)

        assert desk.database.read_sync(everything) == ("", "", [], {b""}, {""})

    async def test_artifacts_are_gone_and_nobody_elses_are(self, desk, project):
        other = (await desk.project(BOB, name="Other")).id
        await upload(desk, project)
        theirs = await upload(desk, other)
        deleted = await rights.delete_project(desk.office, ADA, project, "Lenses")
        assert deleted.artifacts == 1
        assert (await desk.office.artifacts.page(project)).data == ()
        assert (await desk.office.artifacts.page(other)).data == (theirs.view(),)
        assert b"".join(theirs.content.read(0, len(VECTOR))) == VECTOR

    async def test_an_artifact_that_arrives_while_its_project_is_deleted_is_not_kept(self, desk, project):
        await upload(desk, project, save({"before": np.zeros(1, np.float32)}))
        await rights.delete_project(desk.office, ADA, project, "Lenses")
        with pytest.raises(NotFound):
            await upload(desk, project)
        assert (await desk.office.artifacts.page(project)).data == ()

    async def test_its_keys_are_refused_and_its_numbering_keeps_no_gap(self, desk, project, key):
        await record(desk, project, key.id, CANARY)
        elsewhere = desk.elsewhere()
        await elsewhere.authenticate(key.key)
        await rights.delete_project(desk.office, ADA, project, "Lenses")
        with pytest.raises(Unauthenticated, match="revoked"):
            await desk.office.keys.authenticate(key.key)
        desk.time.forward(seconds=1)
        with pytest.raises(Unauthenticated):
            await elsewhere.authenticate(key.key)
        with pytest.raises(NotFound):  # an answer that was still running
            await record(desk, project, key.id, CANARY)
        assert desk.database.read_sync(find_gaps) == []

    async def test_other_projects_are_untouched(self, desk, project, key):
        other = await desk.project()
        kept = await record(desk, other.id, (await desk.key(other.id)).id, CANARY)
        await rights.delete_project(desk.office, ADA, project, "Lenses")
        assert await desk.office.records.get(kept.id, other.id) == kept
        assert await projects.list_own(desk.office, ADA) == [other]

    async def test_one_that_was_cut_off_is_taken_up(self, desk, project, key, monkeypatch):
        await record(desk, project, key.id, CANARY)

        async def fail(_project_id):
            raise StorageError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(desk.office.records, "shred", fail)
            with pytest.raises(StorageError):
                await rights.delete_project(desk.office, ADA, project, "Lenses")
        with pytest.raises(Unauthenticated):
            await desk.office.keys.authenticate(key.key)
        assert (await rights.delete_project(desk.office, ADA, project, "Lenses")).openings == 1
        actions = [each.entry.action for each in desk.database.read_sync(trail.entries)]
        assert actions.count("project.delete") == 1

    async def test_who_deleted_it_reads_that_they_did(self, desk, project):
        await rights.delete_project(desk.office, ADA, project, "Lenses")
        (noted,) = (await rights.read_trail(desk.office, ADA, None, 10)).data
        assert noted.action == "project.delete"

    async def test_two_who_delete_at_the_same_moment_do_it_once(self, desk, project):
        answers = await asyncio.gather(
            *(rights.delete_project(desk.office, ADA, project, "Lenses") for _ in range(3)),
            return_exceptions=True,
        )
        assert all(isinstance(each, NotFound | InvalidRequest) or each.id == project for each in answers)
        actions = [each.entry.action for each in desk.database.read_sync(trail.entries)]
        assert actions.count("project.delete") == 1
