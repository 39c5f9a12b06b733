"""Where the address and the key come from, and whom a key is never shown."""

from __future__ import annotations

import pytest

from transom import Client
from transom.client import ServerUnreachable
from transom.client.connection import DEFAULT_TIMEOUT, Connection
from transom.errors import Unauthenticated

OPENAI = {"OPENAI_BASE_URL": "http://a.test/v1", "OPENAI_API_KEY": "sk-1"}
TRANSOM = {"TRANSOM_BASE_URL": "http://b.test", "TRANSOM_API_KEY": "tr_2"}


def test_nothing_set_means_this_machine_and_no_key() -> None:
    assert Connection.find(environ={}) == Connection("http://127.0.0.1:8600", None)


def test_arguments_come_before_the_environment() -> None:
    found = Connection.find("http://c.test", "tr_3", TRANSOM | OPENAI)
    assert found == Connection("http://c.test", "tr_3")


def test_transoms_own_variables_come_before_openais() -> None:
    assert Connection.find(environ=TRANSOM | OPENAI) == Connection("http://b.test", "tr_2")


def test_openais_variables_serve_where_there_are_no_others() -> None:
    assert Connection.find(environ=OPENAI) == Connection("http://a.test", "sk-1")


def test_an_openai_secret_is_not_sent_to_another_server() -> None:
    secret = {"OPENAI_API_KEY": "sk-1"}
    assert Connection.find(environ=secret).api_key is None
    assert Connection.find("http://c.test", environ=OPENAI).api_key is None
    assert Connection.find(environ=secret | {"TRANSOM_BASE_URL": "http://b.test"}).api_key is None


def test_a_transom_key_under_openais_name_is_sent_anywhere() -> None:
    assert Connection.find("http://c.test", environ={"OPENAI_API_KEY": "tr_4"}).api_key == "tr_4"


def test_an_empty_key_means_none_even_where_the_environment_has_one() -> None:
    assert Connection.find(api_key="", environ=TRANSOM).api_key is None


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_openais(tail) -> None:
    assert (
        Connection.find("http://a.test/models/smol" + tail, environ={}).base_url
        == "http://a.test/models/smol"
    )


@pytest.mark.parametrize(
    "address", ["localhost:8600", "a.test", "ftp://a.test", "http://", "http://a.test:x"]
)
def test_what_is_no_address_is_refused_at_once(address) -> None:
    with pytest.raises(ServerUnreachable, match="is no address"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("http://127.0.0.1:8600", False),
        ("http://localhost", False),
        ("http://[::1]:8", False),
        ("https://a.test", True),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(address, trusted) -> None:
    assert Connection.find(address, environ={}).options(DEFAULT_TIMEOUT)["trust_env"] is trusted


def test_a_key_may_bring_the_line_end_of_its_file() -> None:
    assert Connection.find(api_key="tr_5\n", environ={}).api_key == "tr_5"


@pytest.mark.parametrize("key", ["tr_…", "tr_1\r\nx-evil: 1"])
def test_a_key_that_no_header_can_carry_is_refused(key) -> None:
    with pytest.raises(Unauthenticated, match="copy it again"):
        Client(api_key=key)


def test_a_key_does_not_show_in_a_traceback() -> None:
    assert "tr_2" not in repr(Connection.find(environ=TRANSOM))
