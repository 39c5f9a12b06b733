"""The page `/sign-in` in a real browser: by keyboard, with a passkey, and with what others try."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests import browser
from tests.http.guests import code_in, token_in
from tests.http.live import Live, until
from transom.access.people.mail import MailFolder

PROVIDER = """
[orcid]
name = "ORCID"
issuer = "https://orcid.org"
client_id = "x"
client_secret = "y"
"""
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture(scope="module")
def live(tokenizer, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "providers.toml").write_text(PROVIDER)
    (home / "providers.toml").chmod(0o600)
    with Live(home, tokenizer) as live:
        live.home, live.mails = home, MailFolder(home / "mail")
        yield live


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.program() is None:
        pytest.fail("Chromium is not installed; run scripts/test, or scripts/install-services")
    started = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def page(live, chromium):
    """The page, to somebody who was never here; at the end, without a complaint of the browser's."""
    chromium.call("Network.clearBrowserCookies")
    chromium.events.clear()
    chromium.open(f"{live.site}/sign-in")
    chromium.wait_for("E-mail address")
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture
def authenticator(chromium):
    made = chromium.call("WebAuthn.addVirtualAuthenticator", options=AUTHENTICATOR)["authenticatorId"]
    yield made
    chromium.call("WebAuthn.removeVirtualAuthenticator", authenticatorId=made)


def ask(page, live, email):
    """Ask for a link, and read the mail."""
    page.tab_to("E-mail address")
    page.type(email)
    page.press("Enter")
    page.wait_for("A mail is on its way")
    return until(lambda: [mail for mail in live.mails.list_mails() if mail.to == email])[-1]


def sign_in(page, live, email):
    mail = ask(page, live, email)
    page.type(code_in(mail))
    page.press("Enter")
    page.wait_for(f"You are signed in as {email}.")
    page.wait_for("(here)")


def test_a_wrong_code_is_said_to_be_and_another_address_can_be_given(page, live):
    ask(page, live, "wrong@example.org")
    page.type("0000-0000")
    page.press("Enter")
    page.wait_for("The link or code is wrong")
    assert page.evaluate("document.querySelector('#said').getAttribute('role')") == "status"
    page.tab_to("Another address")
    page.press("Enter")
    page.wait("document.activeElement.id === 'email'")


def test_what_is_no_address_is_not_sent(page, live):
    before = len(live.mails.list_mails())
    page.type("nobody")
    page.press("Enter")
    page.type("@example")  # which the browser takes for one
    page.press("Enter")
    page.wait("document.querySelector('#said').className === 'wrong'")
    assert len(live.mails.list_mails()) == before


def test_a_link_in_a_browser_that_did_not_ask_signs_nobody_in(page, live):
    mail = ask(page, live, "elsewhere@example.org")
    page.call("Network.clearBrowserCookies")
    page.open(f"{live.site}/sign-in#{token_in(mail)}")
    page.wait_for("uses it up")
    page.press("Enter")
    page.wait("document.querySelector('#said').className === 'wrong'")
    page.wait_for("E-mail address")
    assert page.evaluate("fetch('/v1/account').then(reply => reply.status)") == 401


def test_a_link_leaves_the_address_at_once_and_its_button_signs_in(page, live):
    mail = ask(page, live, "link@example.org")
    page.open(f"{live.site}/sign-in#{token_in(mail)}")
    page.wait_for("uses it up")
    assert page.evaluate("location.href") == f"{live.site}/sign-in"
    assert page.focused() == "Sign in"
    page.press("Enter")
    page.wait_for("You are signed in as link@example.org.")
    page.wait_for("(here)")


def test_an_authenticator_that_does_not_know_its_user_makes_no_passkey(page, live, authenticator):
    sign_in(page, live, "unverified@example.org")
    page.call("WebAuthn.setUserVerified", authenticatorId=authenticator, isUserVerified=False)
    page.tab_to("Name of a new passkey")
    page.type("This laptop")
    page.press("Enter")
    page.wait_for("The passkey was not used")
    assert "None yet. With a passkey" in page.text()


def test_a_passkey_that_the_server_has_forgotten_signs_nobody_in(page, live, authenticator):
    sign_in(page, live, "forgotten@example.org")
    add_passkey(page, "This laptop")
    page.tab_to("Remove: This laptop, never used")
    page.press("Enter")
    page.wait_for("None yet. With a passkey")
    sign_out(page)
    page.tab_to("Sign in with a passkey")
    page.press("Enter")
    page.wait_for("The passkey is unknown here")
    assert page.evaluate("fetch('/v1/account').then(reply => reply.status)") == 401


def test_from_an_address_to_a_passkey_and_back_in_by_the_keyboard_alone(page, live, authenticator):
    sign_in(page, live, "ada@example.org")
    add_passkey(page, "This laptop")
    sign_out(page)
    assert page.evaluate("fetch('/v1/account').then(reply => reply.status)") == 401
    page.tab_to("Sign in with a passkey")
    page.press("Enter")
    page.wait_for("You are signed in as ada@example.org.")
    page.wait_for("This laptop, last used")
    (credential,) = page.call("WebAuthn.getCredentials", authenticatorId=authenticator)["credentials"]
    assert credential["rpId"] == "localhost"
    assert credential["isResidentCredential"]


def test_the_same_device_makes_no_second_passkey_for_an_account(page, live, authenticator):
    sign_in(page, live, "twice@example.org")
    add_passkey(page, "This laptop")
    page.tab_to("Name of a new passkey")
    page.type("Again")
    page.press("Enter")
    page.wait_for("This device has a passkey for this account already.")


def test_who_adds_a_passkey_long_after_the_sign_in_is_asked_to_sign_in_again(page, live, authenticator):
    sign_in(page, live, "old@example.org")
    with closing(sqlite3.connect(live.home / "transom.db")) as database, database:
        database.execute("UPDATE sessions SET created = created - 86400000000")
    page.tab_to("Name of a new passkey")
    page.type("This laptop")
    page.press("Enter")
    page.wait_for("sign in again")
    page.wait_for("E-mail address")
    assert page.evaluate("document.querySelector('#said').className") == ""
    page.events.clear()  # the browser notes that something was refused
    before = len(live.mails.list_mails())
    page.press("Enter")  # the address is still there
    page.wait_for("A mail is on its way")
    page.type(code_in(until(lambda: live.mails.list_mails()[before:])[-1]))
    page.press("Enter")
    page.wait_for("(here)")
    add_passkey(page, "This laptop")


def test_everything_that_can_be_worked_has_a_name(page, live):
    page.call("Accessibility.enable")
    assert names(page) >= {"E-mail address", "Send me a link", "Sign in with a passkey", "Sign in with ORCID"}
    ask(page, live, "names@example.org")
    assert names(page) >= {"Code", "Sign in", "Another address"}
    mail = [mail for mail in live.mails.list_mails() if mail.to == "names@example.org"][-1]
    page.type(code_in(mail))
    page.press("Enter")
    page.wait_for("(here)")
    assert names(page) >= {"Sign out", "Name of a new passkey", "Add a passkey", "Add ORCID"}


def test_no_script_and_no_picture_of_others_comes_in(page):
    page.evaluate(
        "const script = document.createElement('script'); script.textContent = 'window.strange = 1';"
        "document.body.append(script); 0"
    )
    blocked = page.evaluate(
        "new Promise((done) => { const image = new Image(); image.onerror = () => done(true);"
        "image.onload = () => done(false); image.src = '/favicon.ico'; })"
    )
    assert blocked
    assert page.evaluate("window.strange === undefined")
    assert len([text for text in page.complaints() if "Content Security Policy" in text]) == 2
    page.events.clear()


def add_passkey(page, name):
    page.tab_to("Name of a new passkey")
    page.type(name)
    page.press("Enter")
    page.wait_for(f"The passkey {name} was added.")


def sign_out(page):
    page.tab_to("Sign out")
    page.press(" ")
    page.wait_for("You are signed out.")


def names(page):
    """The names of all that can be worked; none is without."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if node.get("role", {}).get("value") in {"button", "textbox", "link"}]
    said = [node["name"]["value"] for node in found]
    assert all(said)
    return set(said)
