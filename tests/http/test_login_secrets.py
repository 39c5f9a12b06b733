"""What is tried to get at what a sign-in keeps: addresses, logs, times, guesses and SQL tell nothing."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event

import transom
from tests.authenticator import Authenticator
from tests.http import thieves
from tests.http.guests import ADA, SITE, code_in, error_of, token_in
from tests.http.thieves import count
from transom.access.credentials import peppers
from transom.access.credentials.keys import LINK, SESSION, mint
from transom.storage.tables import people, sessions

pytestmark = pytest.mark.anyio

street = thieves.street


class TestSecretsInAddresses:
    PLACES = (
        "/v1/account?token={}",
        "/v1/account?{}",
        "/v1/models?api_key={}",
        "/v1/auth/providers?session={}",
        "/v1/auth/providers/uni/callback?state=x&code={}",
        "/health?key={}",
        "/metrics?a=b&c=x{}x",
        "/sign-in?{}",
        "/sign-in/{}",
        "/nowhere/{}",
        "/models/{}/v1/models",
    )

    @pytest.mark.parametrize("kind", ["key", "session", "link"])
    @pytest.mark.parametrize("spell", [str, lambda text: text.replace("_", "%5F").replace("t", "%74", 1)])
    async def test_they_are_refused_even_if_they_are_good(self, street, kind, spell):
        program = street.program()
        secret = await self.secret(street, program, kind)
        for place in self.PLACES:
            reply = await program.get(place.format(spell(secret)))
            assert error_of(reply, 400)["code"] == "secret_in_url", place
            assert secret not in reply.text

    async def secret(self, street, program, kind):
        if kind == "key":
            return street.door.key
        if kind == "session":
            return (await program.sign_in())["token"]
        await program.ask()
        return token_in(await street.last_mail())

    async def test_nothing_secret_is_ever_logged(self, street, caplog, capsys):
        caplog.set_level(logging.DEBUG)
        # The clients here log the addresses that they ask for; what is tried is the server.
        caplog.set_level(logging.WARNING, "httpx2")
        with structlog.testing.capture_logs() as said:
            secrets = await self.a_busy_day(street)
        streams = capsys.readouterr()
        everything = "\n".join([str(said), caplog.text, streams.out, streams.err])
        assert [secret for secret in secrets if secret in everything] == []
        assert ADA not in everything

    async def a_busy_day(self, street):
        """Everything that is secret, after it was used in every way, right and wrong."""
        browser, program = street.browser(), street.program()
        asked = (await program.ask()).json()
        mail = await street.last_mail()
        secrets = [token_in(mail), code_in(mail), street.door.key]
        await program.redeem(request=asked["request"], code="0000-0000")
        welcomed = (await program.redeem(token=token_in(mail))).json()
        await program.redeem(token=token_in(mail))
        await browser.sign_in("eve@example.org")
        secrets += [welcomed["token"], browser.session_cookie]
        secrets.append(browser.client.cookies["__Host-transom_browser"])
        for secret in secrets:
            await program.get(f"/v1/account?token={secret}")
            await program.get("/v1/account", headers={"authorization": f"Bearer {secret}"})
            await program.get("/v1/account", headers={"authorization": secret})
        program.client.headers["authorization"] = f"Bearer {welcomed['token']}"
        await program.client.delete("/v1/account")
        return secrets

    async def test_a_mail_that_cannot_be_sent_is_logged_without_address_or_link(self, street, monkeypatch):
        from transom.access.people.mail import MailNotSent
        from transom.services.people import mails

        class Down:
            async def send(self, mail):
                raise MailNotSent("The mail server did not take it: ConnectionRefusedError.")

        monkeypatch.setattr(street.door.house.entrance, "mailer", Down())
        monkeypatch.setattr(mails, "PAUSES", (0.0, 0.0))
        with structlog.testing.capture_logs() as events:
            assert (await street.program().ask()).status_code == 202
            await street.door.house.settle()
        assert [each["event"] for each in events] == ["mail not sent"] * 3
        assert "example.org" not in str(events)
        assert "tl_" not in str(events)


class Work:
    """What the server does for a request: statements and hashes, in order. Time is not looked at."""

    def __init__(self, street, monkeypatch):
        self.done: list[str] = []
        database = street.door.house.entrance._database
        for engine in (database._reading, database._writing):
            event.listen(engine, "before_cursor_execute", lambda *a: self.done.append(a[2]))
        real = hmac.digest

        def digest(key, message, algorithm):
            self.done.append("hmac")
            return real(key, message, algorithm)

        monkeypatch.setattr(peppers.hmac, "digest", digest)

    def of(self):
        done, self.done = self.done, []
        return [re.sub(r"\s+", " ", line) for line in done if "SAVEPOINT" not in line]


class TestTiming:
    """The same work is done for what exists and for what does not; so there is nothing to time."""

    async def test_asking_for_a_link(self, street, monkeypatch):
        await street.program().sign_in()
        street.clock.forward(hours=1)
        program, work = street.program(), Work(street, monkeypatch)
        known = await program.ask()
        for_known = work.of()
        street.clock.forward(hours=1)
        unknown = await program.ask("nobody@example.org")
        for_unknown = work.of()
        assert for_known == for_unknown
        assert "hmac" in for_known
        assert not any(re.search(r"\bpeople\b", line) for line in for_known)
        assert known.status_code == unknown.status_code == 202
        assert known.json().keys() == unknown.json().keys()
        assert {k: len(v) for k, v in known.json().items()} == {k: len(v) for k, v in unknown.json().items()}
        mails = {mail.to: mail.text for mail in await street.mails()}
        assert _shape(mails[ADA]) == _shape(mails["nobody@example.org"])

    async def test_a_session_that_exists_and_one_that_does_not(self, street, monkeypatch):
        program = street.program()
        token = (await program.sign_in())["token"]
        work = Work(street, monkeypatch)
        real, made_up = token.split("_")[1], mint(SESSION).id
        replies = []
        for session_id in (real, made_up):
            wrong = mint(SESSION)
            guess = type(wrong)(session_id, wrong.secret, SESSION).text
            replies.append(await street.program(authorization=f"Bearer {guess}").get("/v1/account"))
            replies.append(work.of())
        assert replies[1] == replies[3]
        assert "hmac" in replies[1]
        assert error_of(replies[0], 401) == error_of(replies[2], 401)

    @pytest.mark.parametrize("by", ["token", "code"])
    async def test_a_link_that_exists_and_one_that_does_not(self, street, monkeypatch, by):
        program = street.program()
        real = (await program.ask()).json()["request"]
        await street.mails()
        work = Work(street, monkeypatch)
        results = []
        for link_id in (real, mint(LINK).id):
            wrong = mint(LINK)
            guess = type(wrong)(link_id, wrong.secret, LINK).text
            proof = {"token": guess} if by == "token" else {"request": link_id, "code": "0000-0000"}
            results.append((error_of(await program.redeem(**proof), 401), work.of()))
        assert results[0] == results[1]
        assert "hmac" in results[0][1]

    async def test_a_passkey_that_exists_and_one_that_does_not(self, street, monkeypatch):
        browser, authenticator = street.browser(), Authenticator(SITE)
        await browser.sign_in()
        asked = (await browser.post("/v1/account/passkeys/challenge")).json()
        body = {"challenge": asked["challenge"], "credential": authenticator.create(asked["options"])}
        assert (await browser.post("/v1/account/passkeys", body)).status_code == 200
        verified: list[bytes] = []
        from transom.access.sign_in import passkeys

        real = passkeys.webauthn.verify_authentication_response
        monkeypatch.setattr(
            passkeys.webauthn,
            "verify_authentication_response",
            lambda **said: verified.append(said["credential_public_key"]) or real(**said),
        )
        work, results = Work(street, monkeypatch), []
        for credential_id in (authenticator.credential_id, b"x" * 32):
            forger = Authenticator(SITE, credential_id=credential_id, rp_id="transom.example.org")
            asked = (await browser.post("/v1/auth/passkeys/challenge")).json()
            work.of()
            body = {"challenge": asked["challenge"], "credential": forger.get(asked["options"])}
            results.append((error_of(await browser.post("/v1/auth/passkeys", body), 401), work.of()))
        assert results[0] == results[1]
        assert len(verified) == 2


def _shape(text: str) -> str:
    """A mail with its secrets blotted out."""
    return re.sub(r"tl_\w+|[0-9A-Z]{4}-[0-9A-Z]{4}", "*", text)


INJECTIONS = [
    "' OR '1'='1",
    "'; DROP TABLE people; --",
    '" OR 1=1 --',
    "x' UNION SELECT id, mac FROM sessions --",
    "') OR 1=1 --",
    "\\'; DELETE FROM sessions; --",
    "1; SELECT pg_sleep(10)",
    "${jndi:ldap://evil.example.org}",
    "%27%20OR%201=1",
    "{{7*7}}",
    "x\\0' OR 1=1",
]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_sql_in_any_field_or_header_is_text_and_nothing_more(street, text):
    program = street.program()
    await program.sign_in()
    session = program.client.headers["authorization"]
    stranger = street.program()
    credential = Authenticator(SITE, rp_id="transom.example.org").get({"challenge": "AAAA"})
    replies = [
        await stranger.post("/v1/auth/links", {"email": text}),
        await stranger.post("/v1/auth/links", {"email": ADA, "next": text}),
        await stranger.post("/v1/auth/links", {"email": ADA, "session": text}),
        await stranger.post("/v1/auth/links/redeem", {"token": text}),
        await stranger.post("/v1/auth/links/redeem", {"request": text, "code": "ABCD-EFGH"}),
        await stranger.post("/v1/auth/links/redeem", {"request": "x", "code": text[:20].ljust(8, "'")}),
        await stranger.post("/v1/auth/links/redeem", {text: "x"}),
        await stranger.post("/v1/auth/passkeys", {"challenge": text, "credential": credential}),
        await stranger.post("/v1/auth/passkeys", {"challenge": "x", "credential": credential | {"id": text}}),
        await stranger.post(f"/v1/auth/providers/{_quoted(text)}", {}),
        await stranger.get("/v1/auth/providers/uni/callback", params={"state": text, "code": text}),
        await stranger.get("/v1/account", headers={"authorization": f"Bearer {text}"}),
        await stranger.get("/v1/account", headers={"authorization": text}),
        await stranger.get("/v1/account", headers={"cookie": f"__Host-transom_session={_quoted(text)}"}),
        await stranger.get("/v1/account", params={text: text}),
        await stranger.get("/v1/models", headers={"authorization": f"Bearer {text}"}),
    ]
    for reply in replies:
        assert 400 <= reply.status_code < 500, (reply.request.url, reply.text)
    # A few of them are addresses, by the letter of RFC 5321.
    assert (await stranger.ask(f"{text}@example.org")).status_code in {202, 400}
    theirs = {"authorization": session}
    for path in ("sessions", "passkeys", "identities"):
        gone = await stranger.client.delete(f"/v1/account/{path}/{_quoted(text)}", headers=theirs)
        error_of(gone, 404)
    assert await count(street, people) == 1
    assert await count(street, sessions) == 1
    assert (await program.me())["email"] == ADA


@pytest.mark.parametrize("text", INJECTIONS)
async def test_sql_in_what_is_kept_comes_back_as_it_was(street, text):
    program = street.program(**{"user-agent": text})
    await program.sign_in()
    assert (await program.client.patch("/v1/account", json={"name": text})).json()["name"] == text
    (session,) = (await program.get("/v1/account/sessions")).json()
    assert session["agent"] == text


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


async def test_guessing_codes_ends_soon_however_many_ask_at_once(street):
    program = street.program()
    asked = (await program.ask()).json()
    right = code_in(await street.last_mail())
    guesses = [f"{n:04}-0000" for n in range(30) if f"{n:04}-0000" != right]
    replies = await asyncio.gather(
        *(program.redeem(request=asked["request"], code=guess) for guess in guesses)
    )
    assert {reply.status_code for reply in replies} == {401}
    error_of(await program.redeem(request=asked["request"], code=right), 401)


def test_the_page_of_the_link_sends_its_secret_in_a_body():
    source = (Path(transom.__file__).parent / "api" / "pages" / "sign_in.js").read_text(encoding="utf-8")
    assert "?token" not in source
    assert "history.replaceState" in source
