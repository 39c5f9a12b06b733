"""Which key signs what, whatever clocks do."""

from datetime import UTC, datetime, timedelta

import pytest

from transom.client.offline import departures
from transom.errors import ConfigurationError
from transom.records.signing import AHEAD, BEGINNING, SigningKeyFile
from transom.schema.envelopes import PublicKeys, broken_succession
from transom.schema.record import rfc3339

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path):
    return SigningKeyFile(tmp_path / "signing.json")


def test_the_first_key_signs_whatever_the_clock_says(file):
    (only,) = file.keys()
    assert file.at(datetime(1971, 1, 1, tzinfo=UTC)) is file.at(NOON) is only
    assert (file.public()[0].valid_from, file.public()[0].valid_until) == (BEGINNING, None)


def test_a_record_is_signed_by_the_key_of_its_time_though_it_is_written_later(file):
    first = file.at(NOON)
    fresh = file.rotate(NOON)
    since = NOON + AHEAD
    assert file.at(since - timedelta(microseconds=1)).key_id == first.key_id
    assert file.at(since).key_id == file.at(since + timedelta(days=1)).key_id == fresh.key_id
    assert [key.valid_until for key in file.public()] == [rfc3339(since), None]


def test_another_process_sees_the_rotation(file, tmp_path):
    other = SigningKeyFile(tmp_path / "signing.json")
    fresh = file.rotate(NOON)
    assert other.at(NOON + AHEAD).key_id == fresh.key_id


def test_a_clock_that_went_back_does_not_rotate(file):
    file.rotate(NOON)
    with pytest.raises(ConfigurationError, match="look at the clock"):
        file.rotate(NOON - timedelta(hours=1))
    assert len(file.keys()) == 2


def test_each_key_is_endorsed_by_the_one_before_it(file, tmp_path):
    file.rotate(NOON)
    file.rotate(NOON + timedelta(days=1))
    # As another process reads them.
    first, second, third = SigningKeyFile(tmp_path / "signing.json").public()
    assert list(broken_succession([first, second, third])) == []
    assert list(broken_succession([first, third])) == [f"{third.keyid} is not endorsed by the key before it"]
    (told,) = broken_succession([first, second.model_copy(update={"valid_from": BEGINNING})])
    assert told == f"{second.keyid} is not endorsed by the key before it"
    (told,) = broken_succession([first, second.model_copy(update={"keyid": first.keyid})])
    assert told == f"{first.keyid} is not the id of its key"
    (told,) = broken_succession([first, second.model_copy(update={"endorsement": None})])
    assert told == f"{second.keyid} is not endorsed by the key before it"
    told = list(broken_succession([first, second.model_copy(update={"key": "A"})]))
    assert len(told) == 1
    assert told[0].startswith(f"{second.keyid} is no key of Ed25519")


def keys_of(*listed):
    return PublicKeys(log="log+00000000+AA==", records=listed)


def test_keys_follow_from_those_that_are_trusted_if_none_changed(file):
    before = file.public()
    file.rotate(NOON)
    after = file.public()
    assert list(departures(keys_of(*before), keys_of(*after))) == []
    told = list(departures(keys_of(*after), keys_of(*before)))
    assert any(f"{after[1].keyid} is not there any more" in each for each in told)
    (told,) = departures(keys_of(*before), PublicKeys(log="other+00000000+AA==", records=after))
    assert told == "the log has another key: other+00000000+AA=="


@pytest.mark.parametrize("content", ["", "{}", '{"keys": []}', '{"keys": [{"private": "00", "since": "x"}]}'])
def test_what_holds_no_keys_is_a_clear_error(tmp_path, content):
    path = tmp_path / "signing.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="restore it from its backup"):
        SigningKeyFile(path)


def test_what_others_can_read_is_refused(file, tmp_path):
    (tmp_path / "signing.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SigningKeyFile(tmp_path / "signing.json")
