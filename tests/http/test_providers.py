"""Signing in with a provider that is honest: what it is asked, how it answers, and whose account opens."""

from __future__ import annotations

import asyncio

import pytest

from tests.databases import only_sqlite
from tests.http import provider_guests
from tests.http.guests import ADA, error_of
from tests.http.provider_guests import CALLBACK, begin, query_of, sign_in, visit
from tests.issuer import CLIENT_SECRET, Bend

pytestmark = pytest.mark.anyio

two_issuers, issuer = provider_guests.two_issuers, provider_guests.issuer
street = provider_guests.street


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


async def test_an_unknown_provider_is_named(street):
    assert "uni" in error_of(await street.browser().post("/v1/auth/providers/nobody", {}), 404)["message"]
    reply = await street.browser().get("/v1/auth/providers/nobody/callback?state=x&code=y")
    assert reply.status_code == 404


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
