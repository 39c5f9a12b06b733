"""A new master key in the place of the old one: whole or not at all, and beside a running server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, insert, select

from transom.errors import ConfigurationError, Conflict, StorageError
from transom.storage.database import Database
from transom.storage.master_keys import GivenMasterKeys, MasterKeyFile
from transom.storage.migrate import migrate
from transom.storage.rotation import forget, rotate, status
from transom.storage.tables import data_keys, projects
from transom.storage.vault import Place, Vault

PROJECTS = [f"p{number}" for number in range(5)]


class Home:
    """A database with something sealed in each project, and its master keys in a file."""

    def __init__(self, folder):
        self.url = f"sqlite:///{folder}/transom.db"
        self.path = folder / "vault.json"
        self.source = MasterKeyFile(self.path)
        self.database = Database(self.url)
        migrate(self.database)
        rows = [
            {"id": each, "name": each, "created": datetime.now(UTC), "last_sequence": 0} for each in PROJECTS
        ]
        self.database.write_sync(lambda connection: connection.execute(insert(projects), rows) and None)
        self.vault = self.new_vault()
        self.sealed = {each: self.seal(self.vault, each) for each in PROJECTS}

    def new_vault(self):
        """As a process that starts has it."""
        vault = Vault(self.source)
        self.database.read_sync(vault.check)
        return vault

    def seal(self, vault, project):
        place = Place(project, "c", "r")
        return self.database.write_sync(lambda c: vault.charge(c, project, 1).seal(place, project.encode()))

    def everything_opens(self, vault):
        for each, sealed in self.sealed.items():
            place = Place(each, "c", "r")
            opened = self.database.read_sync(lambda c, p=place, s=sealed: vault.open(c, p, s))
            assert opened == each.encode()

    def masters(self):
        """The version that wraps each data key."""
        query = select(data_keys.c.master_version)
        return self.database.read_sync(lambda connection: sorted(connection.execute(query).scalars()))

    @property
    def versions(self):
        return sorted(map(int, json.loads(self.path.read_bytes())["keys"]))


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    yield home
    home.database.close()


def test_a_rotation_that_cannot_commit_changes_no_data_key_and_is_finished_by_the_next(home):
    def fail(_connection):
        raise OSError("no space left on device")

    event.listen(home.database._writing, "commit", fail)
    with pytest.raises(StorageError):
        rotate(home.database, home.source)
    event.remove(home.database._writing, "commit", fail)
    assert (home.masters(), home.versions) == ([1] * 5, [1, 2])
    home.everything_opens(home.new_vault())
    home.seal(home.new_vault(), "p0")
    # Data keys are under version 1, and the file says 2: that is what is finished, with no third version.
    done = rotate(home.database, home.source)
    assert (done.version, done.rewrapped, done.resumed) == (2, 5, True)
    assert (home.masters(), home.versions) == ([2] * 5, [1, 2])
    home.everything_opens(home.new_vault())


def test_a_file_that_cannot_be_written_changes_nothing(home, monkeypatch):
    before = home.path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        rotate(home.database, home.source)
    assert (home.path.read_bytes(), home.masters()) == (before, [1] * 5)


def test_a_data_key_that_does_not_open_stops_the_rotation_before_any_is_changed(home):
    def spoil(connection):
        spoiled = data_keys.update().where(data_keys.c.project_id == "p3").values(wrapped=bytes(60))
        connection.execute(spoiled)

    home.database.write_sync(spoil)
    with pytest.raises(ConfigurationError, match="project p3"):
        rotate(home.database, home.source)
    assert home.masters() == [1] * 5


def test_a_running_server_opens_and_seals_across_two_rotations(home):
    running = home.new_vault()
    for version in (2, 3):
        assert rotate(home.database, home.source).version == version
        home.everything_opens(running)
        home.sealed["p1"] = home.seal(running, "p1")
        home.everything_opens(running)
    assert home.masters() == [3] * 5
    home.everything_opens(home.new_vault())


def test_a_data_key_that_a_running_server_makes_after_a_rotation_is_under_the_new_master(home):
    running = home.new_vault()
    rotate(home.database, home.source)
    home.database.write_sync(lambda connection: running.destroy(connection, "p0"))
    home.sealed["p0"] = home.seal(running, "p0")
    assert home.masters() == [2] * 6
    assert forget(home.database, home.source) == 1
    home.everything_opens(running)
    home.everything_opens(home.new_vault())


def test_a_copy_of_the_database_from_before_opens_until_old_masters_are_forgotten(home, tmp_path):
    sealed = home.database.read_sync(lambda c: c.execute(select(data_keys)).first())
    rotate(home.database, home.source)

    def restore(connection):
        old = data_keys.update().where(data_keys.c.project_id == sealed.project_id)
        connection.execute(old.values(wrapped=sealed.wrapped, master_version=1))

    home.database.write_sync(restore)
    home.everything_opens(home.new_vault())
    with pytest.raises(Conflict, match="rotate first"):
        forget(home.database, home.source)
    assert home.versions == [1, 2]
    rotate(home.database, home.source)
    assert forget(home.database, home.source) == 1
    assert forget(home.database, home.source) == 0
    assert home.versions == [2]
    home.database.write_sync(restore)
    with pytest.raises(ConfigurationError, match="Version 1 of the master key is missing"):
        home.everything_opens(Vault(home.source))


def test_keys_from_a_setting_are_rotated_by_setting_a_new_one_first(home):
    old = home.source.load()
    given = f"1:{old.versions[1].hex()}"
    with pytest.raises(ConfigurationError, match="TRANSOM_VAULT_KEY"):
        rotate(home.database, GivenMasterKeys(given))
    both = GivenMasterKeys(f"2:{'cd' * 32},{given}")
    done = rotate(home.database, both)
    assert (done.version, done.rewrapped, done.resumed) == (2, 5, True)
    home.everything_opens(Vault(GivenMasterKeys(f"2:{'cd' * 32}")))


def test_the_status_counts_data_keys_by_master(home):
    rotate(home.database, home.source)
    home.database.write_sync(lambda connection: home.vault.destroy(connection, "p4"))
    found = status(home.database, home.source)
    shown = [(each.version, each.current, each.data_keys) for each in found.masters]
    assert shown == [(1, False, 0), (2, True, 4)]
    assert (found.destroyed, found.seals) == (1, 5)


ROTATE = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from transom.storage import rotation
from transom.storage.database import Database
from transom.storage.master_keys import MasterKeyFile

url, path, step = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Source(MasterKeyFile):
    def store(self, keys):
        if step == "before the file":
            die()
        super().store(keys)
        if step == "after the file":
            die()

if step == "half written file":
    Path.replace = die
database = Database(url)
if step == "half way through":
    wrap, count = rotation.wrap, 0
    def wrap_some(*arguments):
        global count
        count += 1
        if count == 3:
            die()
        return wrap(*arguments)
    rotation.wrap = wrap_some
if step == "before the commit":
    event.listen(database._writing, "commit", die)
rotation.rotate(database, Source(Path(path)))
if step == "after the commit":
    die()
"""


@pytest.mark.parametrize(
    "step",
    [
        "before the file",
        "half written file",
        "after the file",
        "half way through",
        "before the commit",
        "after the commit",
    ],
)
def test_a_rotation_killed_at_any_step_loses_nothing_and_can_be_run_again(home, tmp_path, step):
    running = home.new_vault()
    process = subprocess.run([sys.executable, "-c", ROTATE, home.url, str(home.path), step], check=False)
    assert process.returncode == -signal.SIGKILL
    assert home.masters() == ([2] * 5 if step == "after the commit" else [1] * 5)
    for vault in (running, home.new_vault()):
        home.everything_opens(vault)
        home.sealed["p2"] = home.seal(vault, "p2")
    version = rotate(home.database, home.source).version
    assert home.masters() == [version] * 5
    for vault in (running, home.new_vault()):
        home.everything_opens(vault)


PRINT_ROTATION = """
import sys
from pathlib import Path
from transom.storage.database import Database
from transom.storage.master_keys import MasterKeyFile
from transom.storage.rotation import rotate

print(rotate(Database(sys.argv[1]), MasterKeyFile(Path(sys.argv[2]))).version)
"""


def test_rotations_side_by_side_come_one_after_the_other(home):
    command = [sys.executable, "-c", PRINT_ROTATION, home.url, str(home.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    versions = sorted(int(process.communicate()[0]) for process in processes)
    assert versions == [2, 3, 4]
    assert home.masters() == [4] * 5
    home.everything_opens(home.new_vault())
