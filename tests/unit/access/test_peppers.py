"""Peppers that are changed under a server that runs."""

import json

import pytest

from tests import databases
from tests.offices import ADA, OPERATOR, open_desk
from transom.access.credentials.peppers import PepperFile, Peppers, generate, load
from transom.access.projects.invitations import LIFETIME
from transom.access.projects.roles import Role
from transom.access.rights.trail import entries
from transom.errors import ConfigurationError, Unauthenticated
from transom.services.people import keys, projects
from transom.services.people.peppers import retire, rotate

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path):
    return tmp_path / "peppers.json"


@pytest.fixture
def file(path):
    return PepperFile(path)


@pytest.fixture
def desk(tmp_path, file):
    with open_desk(databases.fresh(tmp_path), file) as desk:
        yield desk


class TestFile:
    def test_a_change_by_another_process_is_seen(self, path, file):
        PepperFile(path).replace(file.latest().rotated())
        assert file.latest().current == 2
        assert file.latest() == load(path)

    def test_it_is_not_read_again_without_a_change(self, path, file):
        assert file.latest() is file.latest()

    def test_one_that_is_gone_leaves_what_was_known(self, path, file):
        known = file.latest()
        path.unlink()
        assert file.latest() is known

    def test_one_that_holds_nonsense_is_an_error_and_not_a_new_pepper(self, path, file):
        path.write_text("{}")
        with pytest.raises(ConfigurationError, match="backup"):
            file.latest()

    def test_it_stays_for_its_owners_eyes_and_leaves_no_draft(self, path, file):
        file.replace(file.latest().rotated())
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(path.parent.iterdir()) == [path]
        assert json.loads(path.read_text())["current"] == 2

    def test_the_current_one_and_an_unknown_one_cannot_be_left_out(self):
        peppers = generate().rotated()
        assert peppers.without(1).versions == {2: peppers.versions[2]}
        with pytest.raises(ConfigurationError, match="rotate first"):
            peppers.without(2)
        with pytest.raises(ConfigurationError, match="1, 2"):
            peppers.without(7)

    def test_a_number_that_was_used_once_is_not_used_again(self):
        peppers = generate().rotated().rotated().without(2)
        assert peppers.rotated().current == 4
        assert Peppers(peppers.versions, 3) == peppers


class TestUnderAServer:
    async def test_old_keys_stay_good_and_new_ones_use_the_new_pepper(self, desk, file):
        project = (await desk.project()).id
        old = await desk.key(project)
        assert await rotate(desk.office, OPERATOR, file) == 2
        new = await desk.key(project)
        for key in (old, new):
            assert (await desk.office.keys.authenticate(key.key)).key_id == key.id
        with pytest.raises(ConfigurationError, match="1 keys and 0 invitations"):
            await retire(desk.office, OPERATOR, file, 1)

    async def test_a_pepper_is_retired_once_nothing_that_works_needs_it(self, desk, file):
        project = (await desk.project()).id
        revoked, rotated = await desk.key(project), await desk.key(project)
        expiring = await desk.key(project, days=1)
        await projects.invite(desk.office, ADA, project, "bob@example.org", Role.MEMBER)
        await rotate(desk.office, OPERATOR, file)
        await keys.revoke(desk.office, ADA, revoked.id)
        new = await keys.rotate(desk.office, ADA, rotated.id, LIFETIME / 14)
        with pytest.raises(ConfigurationError, match="2 keys and 1 invitations"):
            await retire(desk.office, OPERATOR, file, 1)
        desk.time.now += LIFETIME
        await retire(desk.office, OPERATOR, file, 1)
        assert set(file.latest().versions) == {2}
        assert (await desk.office.keys.authenticate(new.key)).key_id == new.id
        for key in (revoked, rotated, expiring):
            with pytest.raises(Unauthenticated, match="unknown"):
                await desk.office.keys.authenticate(key.key)

    async def test_both_are_in_the_trail(self, desk, file):
        await rotate(desk.office, OPERATOR, file)
        await retire(desk.office, OPERATOR, file, 1)
        noted = [(e.entry.action, e.entry.subject) for e in desk.database.read_sync(entries)]
        assert noted == [("pepper.retire", "1"), ("pepper.rotate", "2")]
