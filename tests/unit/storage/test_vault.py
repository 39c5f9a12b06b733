"""A sealed value opens in its place, unchanged, with its keys; and in no other way."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from tests.vaults import KeysInMemory
from transom.errors import ConfigurationError, StorageError
from transom.storage.database import Database
from transom.storage.master_keys import GivenMasterKeys, MasterKeyFile, MasterKeys
from transom.storage.migrate import migrate
from transom.storage.tables import data_keys, projects
from transom.storage.vault import MOST_SEALS, Place, Vault, is_sealed

SECRET = b'{"prompt": "what nobody else may read"}'
PLACE = Place("local", "records.openings", "rec_1")
HEX = "ab" * 32


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/transom.db")
    migrate(database)
    rows = [
        {"id": name, "name": name, "created": datetime.now(UTC), "last_sequence": 0}
        for name in ("local", "other")
    ]
    database.write_sync(lambda connection: connection.execute(insert(projects), rows) and None)
    yield database
    database.close()


@pytest.fixture
def source():
    return KeysInMemory()


@pytest.fixture
def vault(source):
    return Vault(source)


def seal(database, vault, place=PLACE, data=SECRET):
    return database.write_sync(lambda c: vault.charge(c, place.project_id, 1).seal(place, data))


def open_(database, vault, sealed, place=PLACE):
    return database.read_sync(lambda connection: vault.open(connection, place, sealed))


def rows(database):
    query = select(data_keys).order_by(data_keys.c.project_id, data_keys.c.version)
    return database.read_sync(lambda connection: connection.execute(query).all())


def change(database, **columns):
    database.write_sync(lambda connection: connection.execute(update(data_keys).values(**columns)) and None)


def test_every_single_flipped_bit_is_found(database, vault):
    sealed = seal(database, vault)
    for position in range(len(sealed)):
        for bit in range(8):
            flipped = bytearray(sealed)
            flipped[position] ^= 1 << bit
            with pytest.raises(StorageError, match="does not open"):
                open_(database, vault, bytes(flipped))


def test_a_value_that_was_cut_off_or_grew_does_not_open(database, vault):
    sealed = seal(database, vault)
    for wrong in [sealed[:length] for length in range(len(sealed))] + [sealed + b"\0"]:
        with pytest.raises(StorageError, match="does not open"):
            open_(database, vault, wrong)


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("local", "records.openings", "rec_2"),
        Place("local", "records.statement", "rec_1"),
        Place("other", "records.openings", "rec_1"),
        Place("local", "records.openingsr", "ec_1"),
    ],
    ids=str,
)
def test_a_value_that_was_moved_does_not_open(database, vault, elsewhere):
    sealed = seal(database, vault)
    seal(database, vault, elsewhere)  # so that the other project has a key of the same version
    with pytest.raises(StorageError, match="does not open"):
        open_(database, vault, sealed, elsewhere)


def test_a_value_and_its_data_key_moved_to_another_project_together_do_not_open(database, vault):
    sealed = seal(database, vault)
    [row] = rows(database)
    moved = dict(row._mapping) | {"project_id": "other"}
    database.write_sync(lambda connection: connection.execute(insert(data_keys), moved) and None)
    with pytest.raises(ConfigurationError, match="does not open data key 1 of project other"):
        open_(database, vault, sealed, Place("other", PLACE.column, PLACE.row))


def test_another_master_key_opens_nothing(database, vault):
    sealed = seal(database, vault)
    wrong = Vault(KeysInMemory())
    with pytest.raises(ConfigurationError, match="another database"):
        open_(database, wrong, sealed)
    with pytest.raises(ConfigurationError, match="another database"):
        database.read_sync(wrong.check)


def test_a_master_key_of_a_missing_version_is_named(database, vault, source):
    sealed = seal(database, vault)
    later = MasterKeys({2: bytes(32)}, 2)
    with pytest.raises(ConfigurationError, match="Version 1 of the master key is missing"):
        open_(database, Vault(KeysInMemory(later)), sealed)


def test_a_wrapped_key_with_a_flipped_bit_is_found_at_every_position(database, vault, source):
    sealed = seal(database, vault)
    wrapped = rows(database)[0].wrapped
    assert len(wrapped) == 60
    for position in range(len(wrapped)):
        flipped = bytearray(wrapped)
        flipped[position] ^= 1
        change(database, wrapped=bytes(flipped))
        with pytest.raises(ConfigurationError, match="does not open"):
            open_(database, Vault(source), sealed)
    change(database, wrapped=wrapped)
    assert open_(database, Vault(source), sealed) == SECRET


def test_a_destroyed_key_leaves_nothing_to_read_for_any_process(database, vault, source):
    sealed, kept = seal(database, vault), seal(database, vault, Place("other", "c", "r"))
    beside = Vault(source)
    assert open_(database, beside, sealed) == SECRET
    assert database.write_sync(lambda connection: vault.destroy(connection, "local")) == 1
    for each in (vault, beside, Vault(source)):
        assert open_(database, each, sealed) is None
        assert open_(database, each, kept, Place("other", "c", "r")) == SECRET
    assert rows(database)[0].wrapped is None
    assert rows(database)[0].destroyed is not None
    assert database.write_sync(lambda connection: vault.destroy(connection, "local")) == 0


def test_after_a_key_was_destroyed_the_next_seal_makes_another_one(database, vault, source):
    lost, beside = seal(database, vault), Vault(source)
    seal(database, beside)
    database.write_sync(lambda connection: vault.destroy(connection, "local"))
    for each in (vault, beside):  # the second still remembers the key that is gone
        assert open_(database, each, seal(database, each)) == SECRET
    assert [(row.version, row.wrapped is None) for row in rows(database)] == [(1, True), (2, False)]
    assert open_(database, vault, lost) is None


def test_the_bytes_of_a_destroyed_key_leave_the_files(database, vault, tmp_path):
    seal(database, vault)
    wrapped = rows(database)[0].wrapped
    assert anywhere(tmp_path, wrapped)
    database.write_sync(lambda connection: vault.destroy(connection, "local"))
    database.scrub()
    assert not anywhere(tmp_path, wrapped)


def anywhere(folder, data):
    return [path.name for path in folder.iterdir() if data in path.read_bytes()]


def test_a_key_that_a_rolled_back_write_made_seals_nothing_that_is_kept(database, vault, source):
    def fail(connection):
        vault.charge(connection, "local", 1)
        raise KeyError

    with pytest.raises(KeyError):
        database.write_sync(fail)
    phantom = vault.at_hand("local")
    assert rows(database) == []
    # Another process makes a key of the same version.
    seal(database, Vault(source))
    sealed = seal(database, vault)
    assert vault.at_hand("local") is not phantom
    assert open_(database, Vault(source), sealed) == SECRET


def test_a_full_key_gets_a_successor_and_still_opens(database, source):
    vault = Vault(source, most_seals=3)
    sealed = [seal(database, vault) for _ in range(7)]
    assert [(row.version, row.seals) for row in rows(database)] == [(1, 3), (2, 3), (3, 1)]
    assert {open_(database, Vault(source), each) for each in sealed} == {SECRET}
    assert len(set(sealed)) == 7


def test_two_processes_share_one_count(database, source):
    vaults = [Vault(source, most_seals=4) for _ in range(2)]
    for _ in range(3):
        for vault in vaults:
            seal(database, vault)
    assert [(row.version, row.seals) for row in rows(database)] == [(1, 4), (2, 2)]


def test_more_values_at_once_than_a_key_may_seal_are_refused(database, source):
    with pytest.raises(StorageError, match="more than a fresh data key"):
        database.write_sync(lambda connection: Vault(source, most_seals=4).charge(connection, "local", 5))
    assert rows(database) == []


def test_the_limit_is_that_of_nist_for_random_nonces():
    assert MOST_SEALS == 2**32


def test_what_is_json_is_never_taken_for_sealed():
    assert not any(map(is_sealed, (b"{}", b"[]", b"", b"null", b'"', b" ")))


@given(st.binary(max_size=64), st.text(max_size=9), st.text(max_size=9))
def test_anything_comes_back_from_any_place(data, column, row):

    from transom.storage.vault import DataKey

    key, place = DataKey.of("local", 7, b"", bytes(32)), Place("local", column, row)
    sealed = key.seal(place, data)
    assert is_sealed(sealed)
    assert key.open(place, sealed) == data
    assert len(sealed) == len(data) + 33


class TestMasterKeyFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "vault.json"

    def test_it_is_made_for_its_owner_alone_where_nothing_was_sealed_yet(self, database, path):
        vault = Vault(MasterKeyFile(path))
        database.read_sync(vault.check)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = path.read_bytes()
        database.read_sync(Vault(MasterKeyFile(path)).check)
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []

    def test_a_lost_file_is_not_made_anew(self, database, path):
        vault = Vault(MasterKeyFile(path))
        database.read_sync(vault.check)
        seal(database, vault)
        path.unlink()
        with pytest.raises(ConfigurationError, match=r"is missing.*restore it from its backup"):
            database.read_sync(Vault(MasterKeyFile(path)).check)
        assert not path.exists()

    def test_a_file_that_others_can_read_is_refused(self, path):
        MasterKeyFile(path).create()
        path.chmod(0o640)
        with pytest.raises(ConfigurationError, match="can be read by others"):
            MasterKeyFile(path).load()

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "{}",
            '{"current": 1, "keys": {}}',
            '{"current": 1, "keys": []}',
            json.dumps({"current": 2, "keys": {"1": HEX}}),
            '{"current": 1, "keys": {"1": "00"}}',
            '{"current": 1, "keys": {"1": "xx"}}',
            json.dumps({"current": 1, "keys": {"one": HEX}}),
        ],
    )
    def test_a_file_of_something_else_is_refused(self, path, content):
        path.write_text(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError):
            MasterKeyFile(path).load()

    def test_a_disk_that_fails_leaves_the_old_file_whole(self, path, monkeypatch):
        file = MasterKeyFile(path)
        file.create()
        before = path.read_bytes()

        def fail(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space"):
            file.store(file.load().with_new())
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == ["vault.json"]


class TestGivenMasterKeys:
    @pytest.mark.parametrize(
        "text",
        ["", "x", HEX[:-2], HEX + "00", f"one:{HEX}", f"1:{HEX},1:{HEX}", f"{HEX},", f"1:{HEX};2:{HEX}"],
    )
    def test_what_is_no_key_is_refused_without_being_repeated(self, text):
        with pytest.raises(ConfigurationError) as refusal:
            GivenMasterKeys(text)
        assert HEX[:8] not in refusal.value.message

    def test_one_key_is_version_1_and_of_several_the_first_is_current(self):
        assert GivenMasterKeys(HEX).load() == MasterKeys({1: bytes.fromhex(HEX)}, 1)
        both = GivenMasterKeys(f"4:{'cd' * 32}, 3:{HEX}").load()
        assert (both.current, sorted(both.versions)) == (4, [3, 4])

    def test_only_its_owner_changes_it(self):
        given = GivenMasterKeys(HEX)
        with pytest.raises(ConfigurationError, match=r"put `2:<64 hexadecimal digits>,` before"):
            given.store(given.load().with_new())

    def test_no_key_is_in_what_is_printed(self):
        keys = GivenMasterKeys(HEX).load()
        assert HEX not in repr(keys)
        assert repr(bytes.fromhex(HEX)) not in repr(keys)
