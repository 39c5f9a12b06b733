"""The file of the log's own key: made once, kept, and never another's."""

import pytest

from transom.errors import ConfigurationError
from transom.tlog.keys import open_key


def test_a_key_is_made_once_and_found_again(tmp_path):
    made = open_key(tmp_path / "log.key", None)
    assert made.name.startswith("transom.invalid/")
    assert open_key(tmp_path / "log.key", None).verifier == made.verifier
    assert open_key(tmp_path / "log.key", made.name).verifier == made.verifier
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600


def test_a_log_cannot_be_renamed(tmp_path):
    open_key(tmp_path / "log.key", "log.example/1")
    with pytest.raises(ConfigurationError, match=r"log\.example/1.*cannot be renamed"):
        open_key(tmp_path / "log.key", "log.example/2")


@pytest.mark.parametrize(
    "name",
    ["", "a log", "a+log", "a\nlog", "a\x00log", "a\x7flog", "x" * 256],
    ids=["empty", "space", "plus", "line", "null", "delete", "long"],
)
def test_a_name_that_no_note_can_carry_is_refused_before_a_key_is_made(tmp_path, name):
    with pytest.raises(ConfigurationError, match="TRANSOM_LOG_ORIGIN"):
        open_key(tmp_path / "log.key", name)
    assert not (tmp_path / "log.key").exists()


@pytest.mark.parametrize("content", [b"", b"PRIVATE+KEY+a+00000000+AA==", b"\xff", b"a+b+c"])
def test_what_holds_no_key_is_a_clear_error(tmp_path, content):
    path = tmp_path / "log.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no key of a log"):
        open_key(path, None)


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match="its folder is not there"):
        open_key(tmp_path / "keys" / "log.key", None)
