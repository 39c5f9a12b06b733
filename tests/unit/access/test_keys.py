"""The text of keys and the file of peppers."""

import json
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.access.credentials import peppers
from transom.access.credentials.keys import base62, checksum, mint, parse
from transom.errors import ConfigurationError, Unauthenticated

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


GOOD = mint().text

NO_KEYS = {
    "prefix alone": "tr_",
    "another service's": "sk-proj-abc",
    "right length": "tr_" + "a" * 72,
    "no secret": "tr_" + "a" * 22 + "_",
    "one too long": GOOD + "0",
    "one too short": GOOD[:-1],
    "space before": " " + GOOD,
    "newline after": GOOD + "\n",
    "wrong prefix": "TR" + GOOD[2:],
    "not ASCII": "tr_" + "é" * 22 + GOOD[25:],
    "digits of another script": "tr_" + "٣" * 22 + GOOD[25:],
    "half a character": "\ud800",
}


@pytest.mark.parametrize("text", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(Unauthenticated, match="malformed"):
        parse(text)


@given(st.integers(3, 74), st.sampled_from(ALPHABET))
def test_one_mistyped_character_is_found(position, character):
    text = mint().text
    if text[position] in ("_", character):
        return
    with pytest.raises(Unauthenticated, match="checksum"):
        parse(text[:position] + character + text[position + 1 :])


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**256 - 1))
def test_any_key_reads_back(identifier, secret):
    body = f"tr_{base62(identifier, 22)}_{base62(secret, 43)}"
    key = parse(body + checksum(body))
    assert (key.id, key.secret) == (base62(identifier, 22), base62(secret, 43))
    assert key.text == body + checksum(body)


@given(st.integers(0, 62**6 - 1))
def test_base62_reads_back(number):
    digits = base62(number, 6)
    assert sum(ALPHABET.index(digit) * 62**power for power, digit in enumerate(reversed(digits))) == number


@pytest.mark.parametrize("number", [-1, 62**6])
def test_base62_refuses_what_does_not_fit(number):
    with pytest.raises(ValueError, match="base62"):
        base62(number, 6)


def test_a_minted_key_has_the_published_form_and_does_not_show_its_secret_by_accident():
    key = mint()
    assert [len(part) for part in key.text.split("_")] == [2, 22, 49]
    assert key.secret not in repr(key)
    assert len({mint().text for _ in range(100)}) == 100


def test_peppers_that_others_can_read_are_refused(tmp_path):
    path = tmp_path / "peppers.json"
    peppers.load(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        peppers.load(path)


DAMAGED = [
    "",
    "{",
    "[]",
    "{}",
    "7",
    '{"peppers": {}, "current": 1}',
    '{"peppers": [], "current": 1}',
    '{"peppers": {"1": "00"}, "current": 1}',
    '{"peppers": {"1": "xx"}, "current": 1}',
    '{"peppers": {"x": ""}, "current": 1}',
    '{"peppers": {"1": "' + "00" * 32 + '"}, "current": 2}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_peppers_is_refused_and_not_replaced(tmp_path, content):
    path = tmp_path / "peppers.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        peppers.load(path)
    assert path.read_text() == content


def test_peppers_are_made_once_and_for_the_owner_alone(tmp_path):
    path = tmp_path / "peppers.json"
    before = os.umask(0)
    try:
        first = peppers.load(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert peppers.load(path) == first
    assert list(tmp_path.iterdir()) == [path]
    assert first.versions[1].hex() not in repr(first)


def test_processes_that_start_together_use_the_same_peppers(tmp_path):
    path, loaded = tmp_path / "peppers.json", []
    start = threading.Barrier(8)

    def load():
        start.wait()
        loaded.append(peppers.load(path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 8
    assert all(one == loaded[0] for one in loaded)
    assert json.loads(path.read_text())["current"] == 1
