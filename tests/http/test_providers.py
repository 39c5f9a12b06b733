"""Signing in with a provider, against one that runs on loopback and lies in one way at a time."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.databases import only_sqlite
from tests.http.guests import ADA, SITE, Clock, error_of, open_street
from tests.issuer import CLIENT_ID, CLIENT_SECRET, Bend, running_issuer

pytestmark = pytest.mark.anyio

CALLBACK = SITE + "/v1/auth/providers/{}/callback"


@pytest.fixture(scope="module")
def two_issuers():
    clock = Clock()
    with running_issuer(clock) as one, running_issuer(clock) as other:
        yield one, other


@pytest.fixture
def issuer(two_issuers):
    for each in two_issuers:
        each.bend, each.algorithm = Bend(), "RS256"
        each.user = {"sub": "ada", "name": "Ada L."}
        each.page = {"id": 4711, "name": "Ada L.", "login": "ada"}
        each.asked.clear()
    return two_issuers[0]


@pytest.fixture
async def street(tokenizer, tmp_path, two_issuers, issuer):
    one, other = two_issuers
    provider = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    tables = {
        "uni": {"name": "A university", "issuer": one.url, **provider},
        "lab": {"name": "A lab", "issuer": other.url, "trust_email": True, **provider},
        "hub": {
            "name": "A hub",
            "kind": "oauth2",
            "issuer": "https://hub.example.org",
            "authorization_endpoint": f"{one.url}/authorize",
            "token_endpoint": f"{one.url}/token",
            "userinfo_endpoint": f"{one.url}/user",
            "auth_method": "client_secret_post",
            **provider,
        },
    }
    file = tmp_path / "providers.toml"
    file.write_text("".join(_table(name, table) for name, table in tables.items()))
    file.chmod(0o600)
    for each in two_issuers:
        each.redirect_uris = {CALLBACK.format(name) for name in tables}
    async with open_street(tmp_path, tokenizer) as street:
        one.clock = other.clock = street.clock
        yield street


def _table(name, fields):
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


async def begin(browser, provider="uni", **body):
    reply = await browser.post(f"/v1/auth/providers/{provider}", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["url"]


async def visit(url):
    """What the browser does at the provider; returns where that sends it back to."""
    async with httpx2.AsyncClient(trust_env=False) as elsewhere:
        reply = await elsewhere.get(url)
    assert reply.status_code == 302, url
    back = urlsplit(reply.headers["location"])
    return f"{back.path}?{back.query}"


async def sign_in(browser, provider="uni", **body):
    return await browser.get(await visit(await begin(browser, provider, **body)))


def query_of(url):
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_somebody_new_gets_an_account_and_comes_back_to_it(street, issuer, algorithm):
    issuer.algorithm = algorithm
    browser = street.browser()
    reply = await sign_in(browser, next="/projects")
    assert reply.status_code == 303, reply.text
    assert reply.headers["location"] == "/projects"
    assert reply.headers["referrer-policy"] == "no-referrer"
    me = await browser.me()
    assert (me["name"], me["email"]) == ("Ada L.", None)
    other = street.browser()
    assert (await sign_in(other)).headers["location"] == "/sign-in"
    assert (await other.me())["id"] == me["id"]


async def test_providers_are_listed_without_their_secrets(street):
    reply = await street.browser().get("/v1/auth/providers")
    assert {each["id"]: each["name"] for each in reply.json()} == {
        "uni": "A university",
        "lab": "A lab",
        "hub": "A hub",
    }
    assert CLIENT_SECRET not in reply.text


async def test_what_is_asked_of_the_provider(street, issuer):
    browser = street.browser()
    url = await begin(browser)
    asked = query_of(url)
    assert url.startswith(issuer.url + "/authorize?")
    assert asked["redirect_uri"] == CALLBACK.format("uni")
    assert (asked["response_type"], asked["scope"]) == ("code", "openid")
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert CLIENT_SECRET not in url


@only_sqlite
async def test_neither_verifier_nor_nonce_is_stored(street, tmp_path):
    browser = street.browser()
    asked = query_of(await begin(browser))
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("transom.db*"))
    assert asked["state"].encode() in stored
    assert asked["nonce"].encode() not in stored
    assert browser.client.cookies["__Host-transom_browser"].encode() not in stored


async def test_oauth2_alone_reads_the_user_page(street):
    browser = street.browser()
    assert (await sign_in(browser, "hub")).status_code == 303
    (identity,) = (await browser.get("/v1/account/identities")).json()
    assert (identity["issuer"], identity["subject"]) == ("https://hub.example.org", "4711")


@pytest.mark.parametrize("page", [{}, {"id": None}, {"id": ""}, {"id": True}, {"id": {}}, {"id": "x" * 256}])
async def test_a_user_page_without_a_subject_is_nobody(street, issuer, page):
    issuer.page = page
    assert "no_subject" in error_of(await sign_in(street.browser(), "hub"), 401)["message"]
    assert "GET /user" in issuer.asked


async def test_an_unknown_provider_is_named(street):
    assert "uni" in error_of(await street.browser().post("/v1/auth/providers/nobody", {}), 404)["message"]
    reply = await street.browser().get("/v1/auth/providers/nobody/callback?state=x&code=y")
    assert reply.status_code == 404


def forged(header, claims):
    key = RSAKey.generate_key(2048)
    return jwt.encode(header, claims, key, algorithms=["RS256"])


def unsigned(header, claims):
    def part(document):
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}."


def with_client_secret(header, claims):
    key = OctKey.import_key(CLIENT_SECRET.ljust(32, "."))
    return jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"])


LIES = {
    "another issuer": {"claims": lambda c: c | {"iss": "https://evil.example.org"}},
    "an issuer with a slash more": {"claims": lambda c: c | {"iss": c["iss"] + "/"}},
    "no issuer": {"claims": lambda c: without(c, "iss")},
    "for another client": {"claims": lambda c: c | {"aud": "somebody-else"}},
    "for nobody": {"claims": lambda c: without(c, "aud")},
    "for two, and not said for whom": {"claims": lambda c: c | {"aud": [CLIENT_ID, "somebody-else"]}},
    "for two, and made for the other": {"claims": lambda c: c | {"aud": [CLIENT_ID, "else"], "azp": "else"}},
    "made for another party": {"claims": lambda c: c | {"azp": "somebody-else"}},
    "expired": {"claims": lambda c: c | {"exp": c["iat"] - 61}},
    "without an end": {"claims": lambda c: without(c, "exp")},
    "without a beginning": {"claims": lambda c: without(c, "iat")},
    "made in the future": {"claims": lambda c: c | {"iat": c["iat"] + 300, "exp": c["exp"] + 300}},
    "not valid yet": {"claims": lambda c: c | {"nbf": c["iat"] + 300}},
    "ending never": {"claims": lambda c: c | {"exp": "never"}},
    "of another sign-in": {"claims": lambda c: c | {"nonce": "another"}},
    "of no sign-in": {"claims": lambda c: without(c, "nonce")},
    "of another access token": {"claims": lambda c: c | {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
    "of nobody": {"claims": lambda c: without(c, "sub")},
    "of an empty name": {"claims": lambda c: c | {"sub": ""}},
    "of a number": {"claims": lambda c: c | {"sub": 5}},
    "of a very long name": {"claims": lambda c: c | {"sub": "x" * 256}},
    "signed by a key of somebody's": {"sign": forged},
    "not signed": {"sign": unsigned},
    "signed with the client's secret": {"sign": with_client_secret},
    "no token at all": {"token": lambda t: without(t, "id_token")},
    "no JWT": {"token": lambda t: t | {"id_token": "x.y.z"}},
    "a list": {"token": lambda t: t | {"id_token": []}},
    "no access token": {"token": lambda t: without(t, "access_token")},
    "an error": {"token": lambda _: {"error": "invalid_grant"}},
}


def without(document, name):
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_token_that_does_not_hold_signs_nobody_in(street, issuer, lie):
    issuer.bend = Bend(**lie)
    browser = street.browser()
    assert error_of(await sign_in(browser), 401)["code"] == "sign_in_failed"
    assert browser.session_cookie is None


async def test_clocks_may_be_a_minute_apart(street, issuer):
    issuer.bend = Bend(claims=lambda c: c | {"iat": c["iat"] + 59, "exp": c["iat"] - 59})
    assert (await sign_in(street.browser())).status_code == 303


class TestKeys:
    async def test_they_are_fetched_once(self, street, issuer):
        for _ in range(3):
            assert (await sign_in(street.browser())).status_code == 303
        assert issuer.asked.count("GET /jwks") == 1
        assert issuer.asked.count("GET /.well-known/openid-configuration") == 1

    async def test_a_new_key_is_found(self, street, issuer):
        await sign_in(street.browser())
        street.clock.forward(minutes=1)
        issuer.rotate()
        assert (await sign_in(street.browser())).status_code == 303
        assert issuer.asked.count("GET /jwks") == 2

    async def test_a_key_that_nobody_has_does_not_make_us_ask_without_end(self, street, issuer):
        def of_no_key(header, claims):
            return forged(header | {"kid": "nobody"}, claims)

        await sign_in(street.browser())
        street.clock.forward(minutes=1)
        issuer.bend = Bend(sign=of_no_key)
        for _ in range(4):
            error_of(await sign_in(street.browser()), 401)
        assert issuer.asked.count("GET /jwks") == 2

    async def test_they_are_fetched_again_after_an_hour(self, street, issuer):
        await sign_in(street.browser())
        street.clock.forward(hours=1)
        await sign_in(street.browser())
        assert issuer.asked.count("GET /jwks") == 2


class TestDiscovery:
    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m | {"issuer": "https://evil.example.org"},
            lambda m: m | {"token_endpoint": "http://evil.example.org/token"},
            lambda m: m | {"authorization_endpoint": "javascript:alert(1)"},
            lambda m: without(m, "jwks_uri"),
            lambda m: without(m, "token_endpoint"),
            lambda m: m | {"authorization_endpoint": 5},
        ],
    )
    async def test_what_is_not_this_issuers_or_not_safe_is_not_used(self, street, issuer, change):
        issuer.bend = Bend(metadata=change)
        reply = await street.browser().post("/v1/auth/providers/uni", {})
        assert error_of(reply, 503)["code"] == "sign_in_unavailable"
        assert int(reply.headers["retry-after"]) > 0

    @pytest.mark.parametrize("path", ["/token", "/jwks"])
    async def test_a_provider_that_is_down_is_said_to_be(self, street, issuer, path):
        issuer.bend = Bend(down={path})
        error_of(await sign_in(street.browser()), 503)

    async def test_it_is_not_kept_that_a_provider_was_down(self, street, issuer):
        issuer.bend = Bend(down={"/.well-known/openid-configuration"})
        error_of(await street.browser().post("/v1/auth/providers/uni", {}), 503)
        issuer.bend = Bend()
        assert (await sign_in(street.browser())).status_code == 303


class TestState:
    async def test_another_browser_does_not_come_in_by_it(self, street):
        ada, eve = street.browser(), street.browser()
        back = await visit(await begin(eve))
        assert error_of(await ada.get(back), 401)["code"] == "stale_challenge"
        await begin(ada)
        error_of(await ada.get(back), 401)
        assert ada.session_cookie is None

    async def test_it_is_good_once(self, street):
        browser = street.browser()
        back = await visit(await begin(browser))
        replies = await asyncio.gather(*(browser.get(back) for _ in range(5)))
        assert sorted(reply.status_code for reply in replies) == [303, 401, 401, 401, 401]

    async def test_it_ends(self, street):
        browser = street.browser()
        back = await visit(await begin(browser))
        street.clock.forward(minutes=15)
        error_of(await browser.get(back), 401)

    async def test_two_may_be_under_way_in_one_browser(self, street):
        browser = street.browser()
        first, second = await visit(await begin(browser)), await visit(await begin(browser))
        assert (await browser.get(first)).status_code == 303
        assert (await browser.get(second)).status_code == 303

    @pytest.mark.parametrize("state", ["", "x", "0" * 22])
    async def test_one_that_was_made_up_is_refused(self, street, state):
        browser = street.browser()
        await begin(browser)
        reply = await browser.get(f"/v1/auth/providers/uni/callback?state={state}&code=x")
        error_of(reply, 401)

    async def test_an_answer_without_one_is_refused(self, street):
        reply = await street.browser().get("/v1/auth/providers/uni/callback?code=x")
        assert error_of(reply, 400)["param"] == "state"

    async def test_a_stolen_code_is_of_no_use_in_ones_own_sign_in(self, street, issuer):
        ada, eve = street.browser(), street.browser()
        stolen = query_of(await visit(await begin(ada)))["code"]
        state = query_of(await visit(await begin(eve)))["state"]
        reply = await eve.get(f"/v1/auth/providers/uni/callback?state={state}&code={stolen}&iss={issuer.url}")
        assert "invalid_grant" in error_of(reply, 401)["message"]


class TestMixUp:
    async def test_an_answer_that_names_another_issuer_is_refused(self, street, two_issuers, issuer):
        issuer.bend = Bend(redirect=lambda r: r | {"iss": two_issuers[1].url})
        error_of(await sign_in(street.browser()), 401)
        assert "POST /token" not in issuer.asked

    async def test_a_provider_that_names_itself_always_does(self, street, issuer):
        issuer.bend = Bend(redirect=lambda r: without(r, "iss"))
        error_of(await sign_in(street.browser()), 401)

    async def test_one_that_never_does_need_not(self, street, issuer):
        issuer.bend = Bend(
            redirect=lambda r: without(r, "iss"),
            metadata=lambda m: without(m, "authorization_response_iss_parameter_supported"),
        )
        assert (await sign_in(street.browser())).status_code == 303

    async def test_one_providers_answer_is_none_at_anothers_callback(self, street, two_issuers):
        browser = street.browser()
        back = await visit(await begin(browser, "uni"))
        error_of(await browser.get(back.replace("/uni/", "/lab/")), 401)
        assert "POST /token" not in two_issuers[1].asked

    async def test_a_refusal_is_told_with_its_reason_and_nothing_else(self, street, issuer):
        issuer.bend = Bend(redirect=lambda r: without(r, "code") | {"error": "access_denied"})
        assert "access_denied" in error_of(await sign_in(street.browser()), 401)["message"]
        issuer.bend = Bend(redirect=lambda r: without(r, "code") | {"error": "<b>Call 555-1234"})
        assert "555" not in error_of(await sign_in(street.browser()), 401)["message"]


class TestWhoItIs:
    """An account is never opened by an address that somebody merely claims."""

    async def test_an_untrusted_claim_of_an_address_is_another_account(self, street, issuer):
        ada = (await street.browser().sign_in())["person"]
        issuer.user |= {"email": ADA, "email_verified": True}
        eve = street.browser()
        await sign_in(eve, "uni")
        me = await eve.me()
        assert me["id"] != ada["id"]
        assert me["email"] is None

    async def test_a_trusted_provider_opens_the_account_of_a_verified_address(self, street, two_issuers):
        ada = (await street.browser().sign_in())["person"]
        two_issuers[1].user |= {"email": "ADA@example.org", "email_verified": True}
        browser = street.browser()
        await sign_in(browser, "lab")
        assert (await browser.me())["id"] == ada["id"]

    @pytest.mark.parametrize("verified", [False, "true", 1, None])
    async def test_not_that_of_one_which_it_does_not_call_verified(self, street, two_issuers, verified):
        ada = (await street.browser().sign_in())["person"]
        two_issuers[1].user |= {"email": ADA, "email_verified": verified}
        browser = street.browser()
        await sign_in(browser, "lab")
        assert (await browser.me())["id"] != ada["id"]

    async def test_an_address_in_the_user_page_counts_if_it_is_the_same_users(self, street, two_issuers):
        lab = two_issuers[1]
        page = {"sub": "ada", "email": ADA, "email_verified": True}
        lab.bend = Bend(user=lambda _: page)
        browser = street.browser()
        assert (await sign_in(browser, "lab")).status_code == 303
        assert (await browser.me())["email"] == ADA
        lab.bend = Bend(user=lambda _: page | {"sub": "eve"})
        error_of(await sign_in(street.browser(), "lab"), 401)

    async def test_the_same_subject_at_another_issuer_is_somebody_else(self, street):
        one, other = street.browser(), street.browser()
        await sign_in(one, "uni")
        await sign_in(other, "lab")
        assert (await one.me())["id"] != (await other.me())["id"]

    async def test_an_identity_is_added_from_within_the_session(self, street):
        browser = street.browser()
        ada = (await browser.sign_in())["person"]
        assert (await sign_in(browser, "uni", link=True)).status_code == 303
        other = street.browser()
        await sign_in(other, "uni")
        assert (await other.me())["id"] == ada["id"]

    async def test_adding_one_needs_somebody_and_a_recent_sign_in(self, street):
        browser = street.browser()
        error_of(await browser.post("/v1/auth/providers/uni", {"link": True}), 401)
        await browser.sign_in()
        street.clock.forward(minutes=11)
        error_of(await browser.post("/v1/auth/providers/uni", {"link": True}), 403)

    async def test_who_signed_out_meanwhile_gets_none(self, street):
        browser = street.browser()
        await browser.sign_in()
        back = await visit(await begin(browser, link=True))
        await browser.post("/v1/auth/sign-out")
        error_of(await browser.get(back), 403)
        await browser.sign_in("eve@example.org")
        assert (await browser.get("/v1/account/identities")).json() == []

    async def test_an_identity_that_is_somebodys_is_not_taken_from_them(self, street):
        ada, eve = street.browser(), street.browser()
        await sign_in(ada, "uni")
        await eve.sign_in("eve@example.org")
        error_of(await sign_in(eve, "uni", link=True), 409)
        assert (await eve.get("/v1/account/identities")).json() == []

    async def test_the_only_way_in_is_not_removed(self, street):
        browser = street.browser()
        await sign_in(browser, "uni")
        (identity,) = (await browser.get("/v1/account/identities")).json()
        error_of(await browser.client.delete(f"/v1/account/identities/{identity['id']}"), 409)
        await sign_in(browser, "lab", link=True)
        gone = await browser.client.delete(f"/v1/account/identities/{identity['id']}")
        assert gone.status_code == 204
        assert len((await browser.get("/v1/account/identities")).json()) == 1

    async def test_a_name_is_stripped_of_what_would_not_be_seen(self, street, issuer):
        issuer.user["name"] = "Ada\u202e\x1b[31m\n L." + "x" * 500
        browser = street.browser()
        await sign_in(browser)
        name = (await browser.me())["name"]
        assert name.startswith("Ada[31m L.x")
        assert len(name) == 200
