"""`transom admin vault`, on a home of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, update
from typer.testing import CliRunner

from transom.access.rights.trail import entries
from transom.app import open_database, open_vault
from transom.cli.main import app
from transom.config import Settings
from transom.records.sealing import seal_openings
from transom.storage.tables import data_keys, projects, records

PLAIN = b'{"prompt": "the secret"}'


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("TRANSOM_HOME", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def run(*arguments, status=0):
    result = CliRunner().invoke(app, ["admin", "vault", *arguments])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def database(home):
    """A database with one sealed record and one from before there was a vault."""
    database = open_database(Settings())
    vault = open_vault(Settings(), database)

    def write(connection):
        project = {"id": "local", "name": "", "created": datetime.now(UTC), "last_sequence": 2}
        connection.execute(insert(projects), project)
        key = vault.charge(connection, "local", 1)
        empty = {column.name: "" for column in records.c if not column.nullable}
        empty |= {
            "project_id": "local",
            "key_id": None,
            "created": datetime.now(UTC),
            "statement": b"",
        }
        for number, openings in ((1, seal_openings(key, "rec_1", PLAIN)), (2, PLAIN)):
            row = empty | {"id": f"rec_{number}", "sequence": number, "openings": openings}
            row["log_index"] = number
            connection.execute(insert(records), row)

    database.write_sync(write)
    yield database
    database.close()


def test_an_empty_home_gets_a_master_key_and_nothing_to_rotate(home):
    assert "Values sealed: 0" in run("status")
    assert "version 2 of the master key wraps 0 data keys" in run("rotate")
    assert (home / "vault.json").stat().st_mode & 0o777 == 0o600


def test_status_rotate_seal_and_forget(database, home):
    assert "Records that are not sealed: 1" in run("status")
    assert "Sealed 1 records" in run("seal")
    assert "not sealed" not in run("status")
    assert "version 2 of the master key wraps 1 data keys" in run("rotate")
    assert "Dropped 1 old master keys" in run("forget")
    assert list(json.loads((home / "vault.json").read_text())["keys"]) == ["2"]
    stored = database.read_sync(lambda c: c.execute(select(records.c.openings)).scalars().all())
    assert all(PLAIN not in each for each in stored)
    noted = [each.entry.action for each in database.read_sync(entries)]
    assert noted == ["vault.forget", "vault.rotate", "vault.seal"]


@pytest.mark.parametrize("command", ["status", "rotate", "forget", "seal"])
def test_a_lost_file_is_a_clear_error_and_is_not_made_anew(database, home, command):
    (home / "vault.json").unlink()
    assert "restore it from its backup" in " ".join(run(command, status=1).split())
    assert not (home / "vault.json").exists()


def test_the_file_of_another_home_is_a_clear_error(database, home):
    (home / "vault.json").write_text(json.dumps({"current": 1, "keys": {"1": "00" * 32}}))
    assert "does not open data key 1 of project local" in " ".join(run("rotate", status=1).split())


def test_old_masters_in_use_are_not_forgotten(database):
    run("rotate")
    back = update(data_keys).values(master_version=1)
    database.write_sync(lambda connection: connection.execute(back) and None)
    assert "does not open" in " ".join(run("forget", status=1).split())


def test_a_key_in_a_setting_is_used_and_never_shown(home, monkeypatch):
    key = "ab" * 32
    monkeypatch.setenv("TRANSOM_VAULT_KEY", key)
    assert "The master keys are in TRANSOM_VAULT_KEY" in run("status")
    refused = run("rotate", status=1)
    assert "put `2:" in " ".join(refused.split())
    assert key not in refused + repr(Settings())
    assert not (home / "vault.json").exists()


def test_a_malformed_key_in_a_setting_is_named_and_not_shown(home, monkeypatch):
    monkeypatch.setenv("TRANSOM_VAULT_KEY", "abcdef")
    refused = run("status", status=1)
    assert "TRANSOM_VAULT_KEY" in refused or "32 bytes" in refused
    assert "abcdef" not in refused


def test_the_file_may_lie_elsewhere(home, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSOM_VAULT_FILE", str(tmp_path / "keys.json"))
    assert "keys.json" in run("status")
    assert (tmp_path / "keys.json").exists()
