"""The file of sessions: for its owner's eyes, and one server's session for that server alone."""

import json
import os

import pytest

from transom.client.kept import KeptSessions
from transom.errors import Unauthenticated

HERE, THERE = "http://127.0.0.1:8600", "https://transom.example.org"


@pytest.fixture
def kept(tmp_path):
    return KeptSessions(tmp_path / "folder" / "sessions.json")


def test_there_is_nothing_at_first(kept):
    assert kept.get(HERE) is None
    kept.forget(HERE)
    assert not kept.path.exists()


def test_each_server_has_its_own(kept):
    kept.keep(HERE, "ts_1")
    kept.keep(THERE, "ts_2")
    kept.keep(HERE, "ts_3")
    assert (kept.get(HERE), kept.get(THERE), kept.get(THERE + ":8443")) == ("ts_3", "ts_2", None)
    kept.forget(HERE)
    assert (kept.get(HERE), kept.get(THERE)) == (None, "ts_2")


def test_only_the_owner_reads_it_whatever_the_umask(kept):
    before = os.umask(0)
    try:
        kept.keep(HERE, "ts_1")
        kept.keep(THERE, "ts_2")
    finally:
        os.umask(before)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700
    assert list(kept.path.parent.iterdir()) == [kept.path]


def test_one_that_others_can_read_is_not_used(kept):
    kept.keep(HERE, "ts_1")
    kept.path.chmod(0o644)
    with pytest.raises(Unauthenticated, match="read by others"):
        kept.get(HERE)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 5}', "null"])
def test_a_damaged_one_is_named(kept, content):
    kept.keep(HERE, "ts_1")
    kept.path.write_text(content)
    with pytest.raises(Unauthenticated, match=r"sessions\.json is damaged"):
        kept.get(HERE)


def test_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KeptSessions(environ={}).path == tmp_path / ".config" / "transom" / "sessions.json"
    assert KeptSessions(environ={"XDG_CONFIG_HOME": "/x"}).path.as_posix() == "/x/transom/sessions.json"
    named = {"TRANSOM_SESSION_FILE": "/y/z", "XDG_CONFIG_HOME": "/x"}
    assert KeptSessions(environ=named).path.as_posix() == "/y/z"


def test_it_is_json(kept):
    kept.keep(HERE, "ts_1")
    assert json.loads(kept.path.read_text()) == {HERE: "ts_1"}
