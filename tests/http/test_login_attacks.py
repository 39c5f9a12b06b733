"""What is tried against a sign-in, and how it ends: each attack is refused, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from pathlib import Path

import httpx2
import pytest
import structlog
from sqlalchemy import event, select

import transom
from tests.authenticator import Authenticator
from tests.http.guests import ADA, SITE, code_in, error_of, open_street, token_in
from transom.access.credentials import peppers
from transom.access.credentials.keys import LINK, SESSION, mint
from transom.storage.tables import people, sessions

pytestmark = pytest.mark.anyio

EVIL = "https://evil.example.org"


@pytest.fixture
async def street(tokenizer, tmp_path):
    providers = tmp_path / "providers.toml"
    providers.write_text(
        '[uni]\nname = "U"\nkind = "oauth2"\nissuer = "https://id.example.org"\nclient_id = "x"\n'
        'authorization_endpoint = "https://id.example.org/a"\ntoken_endpoint = "https://id.example.org/t"\n'
        'userinfo_endpoint = "https://id.example.org/u"\n'
    )
    providers.chmod(0o600)
    async with open_street(tmp_path, tokenizer) as street:
        yield street


async def count(street, table) -> int:
    database = street.door.house.entrance._database
    return await database.read(lambda connection: len(connection.execute(select(table)).all()))


class TestReuse:
    async def test_a_link_that_was_used_is_refused_to_whoever_has_it(self, street):
        browser = street.browser()
        await browser.ask()
        token = token_in(await street.last_mail())
        assert (await browser.redeem(token=token)).status_code == 200
        error_of(await browser.redeem(token=token), 401)
        error_of(await street.browser().redeem(token=token), 401)
        error_of(await street.program().redeem(token=token), 401)
        assert await count(street, sessions) == 1

    async def test_a_link_that_was_stolen_opens_nothing_in_another_browser(self, street):
        ada, thief = street.browser(), street.browser()
        await ada.ask()
        mail = await street.last_mail()
        assert error_of(await thief.redeem(token=token_in(mail)), 401)["code"] == "asked_elsewhere"
        await thief.ask("thief@example.org")
        error_of(await thief.redeem(token=token_in(mail)), 401)
        error_of(await street.program().redeem(token=token_in(mail)), 401)
        assert (await ada.redeem(token=token_in(mail))).status_code == 200

    async def test_a_programs_link_that_is_sent_to_somebody_does_not_sign_their_browser_in(self, street):
        thief, ada = street.program(), street.browser()
        await thief.ask("thief@example.org")
        token = token_in(await street.last_mail("thief@example.org"))
        await ada.ask()
        error_of(await ada.redeem(token=token), 401)
        assert ada.session_cookie is None

    async def test_a_session_that_has_ended_stays_ended(self, street):
        program = street.program()
        token = (await program.sign_in())["token"]
        await program.post("/v1/auth/sign-out")
        for _ in range(2):
            error_of(await street.program(authorization=f"Bearer {token}").get("/v1/account"), 401)


class TestState:
    async def test_a_stolen_state_is_of_no_use_elsewhere(self, street):
        ada, thief = street.browser(), street.browser()
        url = (await ada.post("/v1/auth/providers/uni", {})).json()["url"]
        state = httpx2.URL(url).params["state"]
        await thief.post("/v1/auth/providers/uni", {})
        reply = await thief.get(f"/v1/auth/providers/uni/callback?state={state}&code=x")
        assert error_of(reply, 401)["code"] == "stale_challenge"
        reply = await street.program().get(f"/v1/auth/providers/uni/callback?state={state}&code=x")
        error_of(reply, 401)

    async def test_a_state_is_used_up_by_its_first_answer_whatever_that_was(self, street):
        ada = street.browser()
        url = (await ada.post("/v1/auth/providers/uni", {})).json()["url"]
        state = httpx2.URL(url).params["state"]
        callback = f"/v1/auth/providers/uni/callback?state={state}"
        assert error_of(await ada.get(callback + "&error=access_denied"), 401)["code"] == "sign_in_failed"
        assert error_of(await ada.get(callback + "&code=x"), 401)["code"] == "stale_challenge"


ELSEWHERE = [
    "//evil.example.org",
    "///evil.example.org",
    "/\\evil.example.org",
    "\\\\evil.example.org",
    "\\/evil.example.org",
    "/%5cevil.example.org",
    "/%2fevil.example.org",
    "/%09/evil.example.org",
    "/\t/evil.example.org",
    "/\n/evil.example.org",
    " //evil.example.org",
    "/ /evil.example.org",
    "https://evil.example.org",
    "https:evil.example.org",
    "http:///evil.example.org",
    "HTTPS://EVIL.EXAMPLE.ORG",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example.org",
    "@evil.example.org",
    "/@evil.example.org",
    "//transom.example.org@evil.example.org",
    "https://transom.example.org@evil.example.org",
    "https://transom.example.org.evil.example.org",
    SITE + "/projects",
    "/.//evil.example.org",
    "/..//evil.example.org",
    "/a/../..//evil.example.org",
    "/a//evil.example.org",
    "/\u2044evil.example.org",
    "/\uff0fevil.example.org",
    "/evil\u3002example.org",
    "/a\r\nset-cookie: x=y",
    "/a\0",
    "",
    "/" + "a" * 500,
]


class TestOpenRedirect:
    @pytest.mark.parametrize("target", ELSEWHERE)
    async def test_a_target_that_is_not_plainly_here_is_refused(self, street, target):
        browser = street.browser()
        for reply in (
            await browser.ask(next=target),
            await browser.post("/v1/auth/providers/uni", {"next": target}),
        ):
            error = error_of(reply, 400)
            assert error["param"] == "next"
        assert await street.mails() == []

    @pytest.mark.parametrize("target", ["/", "/a", "/a/", "/a-b/c.d/e_f~", "/a?b=c&d=e+f", "/a#b", "/?a=b#c"])
    async def test_a_path_here_is_taken(self, street, target):
        assert (await street.browser().ask(next=target)).status_code == 202


class TestFixation:
    async def test_a_session_that_was_there_before_is_not_adopted(self, street):
        planted = mint(SESSION).text
        browser = street.browser()
        browser.client.cookies.set("__Host-transom_session", planted, domain="transom.example.org")
        await browser.ask()
        reply = await browser.redeem(token=token_in(await street.last_mail()))
        assert planted not in reply.headers["set-cookie"]
        thief = street.browser()
        thief.client.cookies.set("__Host-transom_session", planted)
        error_of(await thief.get("/v1/account"), 401)

    async def test_signing_in_makes_a_new_session_and_ends_the_old_one(self, street):
        browser = street.browser()
        await browser.sign_in()
        first = browser.session_cookie
        await browser.sign_in()
        second = browser.session_cookie
        assert first != second
        thief = street.browser()
        thief.client.cookies.set("__Host-transom_session", first)
        error_of(await thief.get("/v1/account"), 401)
        assert len((await browser.get("/v1/account/sessions")).json()) == 1

    async def test_a_planted_session_of_the_thiefs_is_ended_and_not_taken_over(self, street):
        thief, ada = street.browser(), street.browser()
        await thief.sign_in("thief@example.org")
        ada.client.cookies.set("__Host-transom_session", thief.session_cookie, domain="transom.example.org")
        await ada.ask()
        reply = await ada.redeem(token=token_in(await street.last_mail()))
        assert reply.json()["person"]["email"] == ADA
        error_of(await thief.get("/v1/account"), 401)

    async def test_a_session_does_not_travel_in_the_other_way(self, street):
        browser, program = street.browser(), street.program()
        await browser.sign_in()
        token = (await program.sign_in())["token"]
        as_token = street.program(authorization=f"Bearer {browser.session_cookie}")
        error_of(await as_token.get("/v1/account"), 401)
        as_cookie = street.browser()
        as_cookie.client.cookies.set("__Host-transom_session", token)
        error_of(await as_cookie.get("/v1/account"), 401)

    async def test_a_cookie_without_the_hosts_prefix_is_nothing(self, street):
        """Any subdomain, and plain HTTP, could have set that one."""
        browser, other = street.browser(), street.browser()
        await browser.sign_in()
        other.client.cookies.set("transom_session", browser.session_cookie)
        error_of(await other.get("/v1/account"), 401)


CHANGES = [
    ("PATCH", "/v1/account", {"name": "Mallory"}),
    ("DELETE", "/v1/account", None),
    ("POST", "/v1/account/email", {"email": "mallory@example.org"}),
    ("POST", "/v1/account/email/confirm", {"request": "x", "code": "ABCD-EFGH"}),
    ("POST", "/v1/account/sessions", None),
    ("DELETE", "/v1/account/sessions", None),
    ("DELETE", "/v1/account/sessions/" + "0" * 22, None),
    ("POST", "/v1/account/passkeys/challenge", None),
    ("POST", "/v1/account/passkeys", {"challenge": "x", "credential": {}}),
    ("DELETE", "/v1/account/passkeys/pky_x", None),
    ("DELETE", "/v1/account/identities/idy_x", None),
    ("POST", "/v1/auth/sign-out", None),
    ("POST", "/v1/auth/providers/uni", {"link": True}),
]
FORGED = {
    "from another site": {"origin": EVIL, "sec-fetch-site": "cross-site"},
    "from another site, by a browser that says only one of the two": {"sec-fetch-site": "cross-site"},
    "from another site, by an old browser": {"origin": EVIL},
    "from a neighbour": {"origin": "https://blog.example.org", "sec-fetch-site": "same-site"},
    "from the same host in the clear": {"origin": SITE.replace("https", "http")},
    "from another port": {"origin": SITE + ":8443"},
    "from a sandboxed frame": {"origin": "null"},
    "from a host that ends alike": {"origin": "https://eviltransom.example.org"},
    "by a form, which has no headers of its own": {"x-transom-csrf": None},
    "with an empty header": {"x-transom-csrf": ""},
}


class TestForgery:
    async def test_every_change_is_tried(self, street):
        """A path that is added has to be added above."""
        described = street.door.app.openapi()["paths"]
        tried = {(method, path) for method, path, _ in CHANGES}
        for path, methods in described.items():
            for method in methods:
                if method != "get" and path.startswith("/v1/account"):
                    pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path))
                    assert any(m == method.upper() and pattern.fullmatch(p) for m, p in tried), path

    @pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
    async def test_a_cookie_is_not_enough_to_change_anything(self, street, forged):
        browser = street.browser()
        before = (await browser.sign_in())["person"]
        for name, value in forged.items():
            if value is None:
                del browser.client.headers[name]
            else:
                browser.client.headers[name] = value
        if "origin" not in forged and "sec-fetch-site" in forged:
            del browser.client.headers["origin"]
        for method, path, body in CHANGES:
            reply = await browser.client.request(method, path, json=body)
            assert error_of(reply, 403)["code"] == "cross_site_request", path
        assert (await browser.me()) == before

    async def test_a_bearer_token_is_sent_by_nobody_unasked_and_needs_no_proof(self, street):
        program = street.program()
        await program.sign_in()
        assert (await program.client.patch("/v1/account", json={"name": "Ada"})).status_code == 200

    @pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
    async def test_nobody_is_signed_in_by_another_site(self, street, forged):
        """Else one would do one's work in the account of whoever made the page."""
        thief = street.browser()
        await thief.ask("thief@example.org")
        token = token_in(await street.last_mail("thief@example.org"))
        for name, value in forged.items():
            thief.client.headers.pop(name)
            if value is not None:
                thief.client.headers[name] = value
        reply = await thief.redeem(token=token)
        assert error_of(reply, 403)["code"] == "cross_site_request"
        assert "set-cookie" not in reply.headers

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
    async def test_a_form_is_not_read(self, street, kind):
        content = json.dumps({"email": ADA}).encode()
        reply = await street.program().client.post(
            "/v1/auth/links", content=content, headers={"content-type": kind}
        )
        error_of(reply, 415)

    async def test_no_other_site_is_allowed_to_send_headers(self, street):
        asking = {"origin": EVIL, "access-control-request-method": "POST"}
        asking["access-control-request-headers"] = "x-transom-csrf, content-type"
        reply = await street.program(**asking).client.options("/v1/auth/links/redeem")
        assert "access-control-allow-origin" not in reply.headers


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
        from transom.services import mails

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


HOSTS = [
    {"host": "evil.example.org"},
    {"host": "evil.example.org", "x-forwarded-host": "evil.example.org"},
    {"x-forwarded-host": "evil.example.org"},
    {"x-forwarded-server": "evil.example.org", "x-host": "evil.example.org"},
    {"forwarded": "host=evil.example.org;proto=http"},
    {"x-forwarded-proto": "http", "x-forwarded-port": "80"},
    {"x-original-url": "https://evil.example.org/", "x-rewrite-url": "https://evil.example.org/"},
    {"host": "transom.example.org@evil.example.org"},
    {"host": "transom.example.org:443@evil.example.org"},
]


@pytest.mark.parametrize("headers", HOSTS, ids=str)
async def test_neither_mails_nor_cookies_nor_providers_follow_what_a_request_calls_the_host(street, headers):
    browser = street.browser()
    reply = await browser.post("/v1/auth/links", {"email": ADA, "session": "cookie"}, headers=headers)
    assert reply.status_code == 202
    assert "evil" not in reply.text + str(reply.headers)
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert "; Secure" in cookie
    assert "domain" not in cookie.lower()
    text = (await street.last_mail()).text
    assert f"{SITE}/sign-in#tl_" in text
    assert "evil" not in text
    url = (await browser.post("/v1/auth/providers/uni", {}, headers=headers)).json()["url"]
    assert httpx2.URL(url).params["redirect_uri"] == f"{SITE}/v1/auth/providers/uni/callback"
    options = (await browser.post("/v1/auth/passkeys/challenge", headers=headers)).json()["options"]
    assert options["rpId"] == "transom.example.org"


async def test_an_origin_is_compared_with_the_setting_and_not_with_the_host(street):
    browser = street.browser()
    await browser.sign_in()
    headers = {"host": "evil.example.org", "origin": EVIL}
    reply = await browser.client.patch("/v1/account", json={"name": "x"}, headers=headers)
    assert error_of(reply, 403)["code"] == "cross_site_request"


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
