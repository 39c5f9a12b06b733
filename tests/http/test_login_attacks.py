"""What is tried against a sign-in by links, pages and headers: each attack is refused, and leaves nothing."""

from __future__ import annotations

import json
import re

import httpx2
import pytest

from tests.http import thieves
from tests.http.guests import ADA, SITE, error_of, token_in
from tests.http.thieves import count
from transom.access.credentials.keys import SESSION, mint
from transom.storage.tables import sessions

pytestmark = pytest.mark.anyio

EVIL = "https://evil.example.org"

street = thieves.street


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
