"""What may be the public address, and what follows from it."""

import pytest

from transom.access.people.origin import Origin, is_safe_transport
from transom.errors import ConfigurationError
from transom.schema.addresses import is_loopback


@pytest.mark.parametrize(
    ("url", "text", "secure", "domain"),
    [
        ("https://Transom.Example.org", "https://transom.example.org", True, "transom.example.org"),
        ("https://transom.example.org/", "https://transom.example.org", True, "transom.example.org"),
        ("https://transom.example.org:443", "https://transom.example.org", True, "transom.example.org"),
        ("https://transom.example.org:8443", "https://transom.example.org:8443", True, "transom.example.org"),
        ("https://192.0.2.7", "https://192.0.2.7", True, None),
        ("http://localhost:8600", "http://localhost:8600", False, "localhost"),
        ("http://localhost:80", "http://localhost", False, "localhost"),
        ("http://127.0.0.1:8600", "http://127.0.0.1:8600", False, None),
        ("http://[::1]:8600", "http://[::1]:8600", False, None),
    ],
)
def test_an_origin_is_as_browsers_spell_it(url, text, secure, domain):
    origin = Origin.parse(url)
    assert (origin.text, origin.secure, origin.passkey_domain) == (text, secure, domain)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "transom.example.org",
        "ftp://transom.example.org",
        "https://",
        "https://transom.example.org/path",
        "https://transom.example.org?x=1",
        "https://transom.example.org#x",
        "https://user@transom.example.org",
        "https://user:pw@transom.example.org",
        "https://transom.example.org:port",
        "https://[::1",
        "http://transom.example.org",
        "http://192.0.2.7",
        "http://localhost.example.org",
    ],
)
def test_what_is_more_or_less_or_in_the_clear_is_refused(url):
    with pytest.raises(ConfigurationError, match="TRANSOM_PUBLIC_URL"):
        Origin.parse(url)


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("192.0.2.7", False), ("localhost.org", False)],
)
def test_this_machine(host, here):
    assert is_loopback(host) is here
    assert is_safe_transport(f"http://{f'[{host}]' if ':' in host else host}/x") is here


def test_https_is_safe_and_other_schemes_are_not():
    assert is_safe_transport("https://anywhere.example.org/x")
    assert not is_safe_transport("file:///etc/passwd")
    assert not is_safe_transport("localhost/x")
