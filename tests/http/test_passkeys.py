"""Passkeys over HTTP, with an authenticator that can be wrong in one way at a time."""

from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from tests.authenticator import PRESENT, VERIFIED, Authenticator, b64
from tests.http.guests import ADA, SITE, error_of, open_street
from transom.access.sign_in.passkeys import MOST_PASSKEYS
from transom.access.sign_in.sessions import RECENT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def street(tokenizer, tmp_path):
    async with open_street(tmp_path, tokenizer) as street:
        yield street


async def register(guest, authenticator, name="Laptop", **client):
    asked = (await guest.post("/v1/account/passkeys/challenge")).json()
    credential = authenticator.create(asked["options"], **client)
    return await guest.post(
        "/v1/account/passkeys", {"challenge": asked["challenge"], "credential": credential, "name": name}
    )


async def challenge(guest):
    reply = await guest.post("/v1/auth/passkeys/challenge")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def enter(guest, asked, credential):
    return await guest.post("/v1/auth/passkeys", {"challenge": asked["challenge"], "credential": credential})


async def sign_in(guest, authenticator, **client):
    asked = await challenge(guest)
    return await enter(guest, asked, authenticator.get(asked["options"], **client))


@pytest.fixture
async def ada(street):
    """Somebody with a passkey; the browser that made it, and the authenticator that holds it."""
    browser, authenticator = street.browser(), Authenticator(SITE)
    await browser.sign_in()
    reply = await register(browser, authenticator)
    assert reply.status_code == 200, reply.text
    return browser, authenticator


async def test_what_an_authenticator_is_asked(street):
    browser = street.browser()
    await browser.sign_in()
    options = (await browser.post("/v1/account/passkeys/challenge")).json()["options"]
    assert options["rp"] == {"id": "transom.example.org", "name": "Transom"}
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["attestation"] == "none"
    assert ADA not in options["user"]["id"]
    asked = (await challenge(street.browser()))["options"]
    assert asked["userVerification"] == "required"
    assert not asked.get("allowCredentials")


async def test_a_passkey_signs_in_on_another_browser(street, ada):
    _, authenticator = ada
    other = street.browser()
    reply = await sign_in(other, authenticator)
    assert reply.status_code == 200, reply.text
    assert (await other.me())["email"] == ADA
    (listed,) = [each for each in (await other.get("/v1/account/sessions")).json() if each["current"]]
    assert listed["method"] == "passkey"


async def test_one_whose_counter_stays_at_zero_is_taken_again_and_again(street):
    browser, authenticator = street.browser(), Authenticator(SITE, step=0)
    await browser.sign_in()
    assert (await register(browser, authenticator)).status_code == 200
    for _ in range(3):
        assert (await sign_in(street.browser(), authenticator)).status_code == 200


async def test_they_are_listed_and_removed(street, ada):
    browser, authenticator = ada
    await sign_in(street.browser(), authenticator)
    (listed,) = (await browser.get("/v1/account/passkeys")).json()
    assert (listed["name"], listed["last_used"] is not None) == ("Laptop", True)
    assert (await browser.client.delete(f"/v1/account/passkeys/{listed['id']}")).status_code == 204
    assert (await browser.get("/v1/account/passkeys")).json() == []
    error_of(await sign_in(street.browser(), authenticator), 401)
    error_of(await browser.client.delete(f"/v1/account/passkeys/{listed['id']}"), 404)


async def test_somebody_elses_is_not_removed(street, ada):
    browser, authenticator = ada
    eve = street.browser()
    await eve.sign_in("eve@example.org")
    (listed,) = (await browser.get("/v1/account/passkeys")).json()
    error_of(await eve.client.delete(f"/v1/account/passkeys/{listed['id']}"), 404)
    assert (await sign_in(street.browser(), authenticator)).status_code == 200


WRONG = {
    "made on another site": {"origin": "https://evil.example.org"},
    "made for another domain": {"rp_id": "evil.example.org"},
    "without verification of the user": {"flags": PRESENT},
    "without the user": {"flags": VERIFIED},
    "inside another site's frame": {"cross_origin": True},
}


class TestRegistering:
    @pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
    async def test_what_is_wrong_is_refused(self, street, wrong):
        browser = street.browser()
        await browser.sign_in()
        reply = await register(browser, Authenticator(**{"origin": SITE} | wrong))
        assert error_of(reply, 401)["code"] == "invalid_passkey"
        assert (await browser.get("/v1/account/passkeys")).json() == []

    async def test_it_needs_a_session_and_a_recent_sign_in(self, street):
        browser = street.browser()
        error_of(await browser.post("/v1/account/passkeys/challenge"), 401)
        await browser.sign_in()
        asked = (await browser.post("/v1/account/passkeys/challenge")).json()
        street.clock.forward(seconds=RECENT.total_seconds() + 1)
        error_of(await browser.post("/v1/account/passkeys/challenge"), 403)
        credential = Authenticator(SITE).create(asked["options"])
        body = {"challenge": asked["challenge"], "credential": credential}
        error_of(await browser.post("/v1/account/passkeys", body), 403)

    async def test_a_challenge_is_answered_once(self, street):
        browser = street.browser()
        await browser.sign_in()
        asked = (await browser.post("/v1/account/passkeys/challenge")).json()

        async def answer():
            credential = Authenticator(SITE).create(asked["options"])
            body = {"challenge": asked["challenge"], "credential": credential}
            return await browser.post("/v1/account/passkeys", body)

        replies = await asyncio.gather(*(answer() for _ in range(5)))
        assert sorted(reply.status_code for reply in replies) == [200, 401, 401, 401, 401]

    async def test_it_ends_after_five_minutes(self, street):
        browser = street.browser()
        await browser.sign_in()
        asked = (await browser.post("/v1/account/passkeys/challenge")).json()
        street.clock.forward(minutes=5)
        credential = Authenticator(SITE).create(asked["options"])
        body = {"challenge": asked["challenge"], "credential": credential}
        assert error_of(await browser.post("/v1/account/passkeys", body), 401)["code"] == "stale_challenge"

    async def test_another_accounts_challenge_is_not_answered(self, street):
        ada, eve = street.browser(), street.browser()
        await ada.sign_in()
        await eve.sign_in("eve@example.org")
        asked = (await ada.post("/v1/account/passkeys/challenge")).json()
        credential = Authenticator(SITE).create(asked["options"])
        body = {"challenge": asked["challenge"], "credential": credential}
        error_of(await eve.post("/v1/account/passkeys", body), 401)
        assert (await eve.get("/v1/account/passkeys")).json() == []

    async def test_a_challenge_for_signing_in_makes_no_passkey(self, street):
        browser = street.browser()
        await browser.sign_in()
        asked = await challenge(browser)
        options = (await browser.post("/v1/account/passkeys/challenge")).json()["options"]
        credential = Authenticator(SITE).create(options | asked["options"])
        body = {"challenge": asked["challenge"], "credential": credential}
        error_of(await browser.post("/v1/account/passkeys", body), 401)

    async def test_a_credential_is_one_persons(self, street, ada):
        _, authenticator = ada
        eve = street.browser()
        await eve.sign_in("eve@example.org")
        copy = Authenticator(SITE, credential_id=authenticator.credential_id)
        error_of(await register(eve, copy), 409)
        reply = await sign_in(street.browser(), authenticator)
        assert reply.json()["person"]["email"] == ADA

    async def test_there_is_an_end_to_them(self, street):
        browser = street.browser()
        await browser.sign_in()
        for _ in range(MOST_PASSKEYS):
            assert (await register(browser, Authenticator(SITE))).status_code == 200
        error_of(await register(browser, Authenticator(SITE)), 409)

    async def test_an_address_that_is_a_number_has_none(self, tokenizer, tmp_path):
        async with open_street(tmp_path, tokenizer, site="http://127.0.0.1:8600") as street:
            browser = street.browser()
            await browser.sign_in()
            for path in ("/v1/account/passkeys/challenge", "/v1/auth/passkeys/challenge"):
                assert "TRANSOM_PUBLIC_URL" in error_of(await browser.post(path), 409)["message"]


class TestSigningIn:
    @pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
    async def test_what_is_wrong_is_refused(self, street, ada, wrong):
        _, authenticator = ada
        for knob, value in wrong.items():
            setattr(authenticator, knob, value)
        other = street.browser()
        assert error_of(await sign_in(other, authenticator), 401)["code"] == "invalid_passkey"
        assert other.session_cookie is None

    async def test_a_counter_that_does_not_move_on_is_a_copys(self, street, ada):
        _, authenticator = ada
        assert (await sign_in(street.browser(), authenticator)).status_code == 200
        authenticator.step = 0
        error_of(await sign_in(street.browser(), authenticator), 401)
        authenticator.step = -1
        error_of(await sign_in(street.browser(), authenticator), 401)

    async def test_an_answer_is_taken_once(self, street, ada):
        _, authenticator = ada
        browser = street.browser()
        asked = await challenge(browser)
        credential = authenticator.get(asked["options"])
        replies = await asyncio.gather(*(enter(browser, asked, credential) for _ in range(10)))
        assert sorted(reply.status_code for reply in replies) == [200] + [401] * 9

    async def test_an_answer_to_one_challenge_is_none_to_another(self, street, ada):
        _, authenticator = ada
        browser = street.browser()
        first, second = await challenge(browser), await challenge(browser)
        error_of(await enter(browser, second, authenticator.get(first["options"])), 401)

    async def test_a_wrong_answer_uses_the_challenge_up(self, street, ada):
        _, authenticator = ada
        browser = street.browser()
        asked = await challenge(browser)
        error_of(await enter(browser, asked, Authenticator(SITE, rp_id="x").get(asked["options"])), 401)
        reply = await enter(browser, asked, authenticator.get(asked["options"]))
        assert error_of(reply, 401)["code"] == "stale_challenge"

    async def test_it_ends_after_five_minutes(self, street, ada):
        _, authenticator = ada
        browser = street.browser()
        asked = await challenge(browser)
        street.clock.forward(minutes=5)
        error_of(await enter(browser, asked, authenticator.get(asked["options"])), 401)

    async def test_an_unknown_credential_is_refused_like_a_wrong_signature(self, street, ada):
        _, authenticator = ada
        stranger = Authenticator(SITE, rp_id="transom.example.org", user_handle=authenticator.user_handle)
        unknown = await sign_in(street.browser(), stranger)
        forger = Authenticator(
            SITE,
            rp_id="transom.example.org",
            user_handle=authenticator.user_handle,
            credential_id=authenticator.credential_id,
            counter=5,
        )
        assert error_of(await sign_in(street.browser(), forger), 401) == error_of(unknown, 401)

    @pytest.mark.parametrize("handle", [None, b"per_" + b"0" * 22, b""])
    async def test_the_user_handle_names_the_person(self, street, ada, handle):
        _, authenticator = ada
        authenticator.user_handle = handle
        error_of(await sign_in(street.browser(), authenticator), 401)

    @pytest.mark.parametrize("kind", ["webauthn.create", "", 5, None])
    async def test_an_answer_to_another_question_is_refused(self, street, ada, kind):
        _, authenticator = ada
        error_of(await sign_in(street.browser(), authenticator, type=kind), 401)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("id",), 5),
            (("rawId",), "AAAA"),
            (("type",), "password"),
            (("response",), None),
            (("response",), []),
            (("response", "clientDataJSON"), "!!!"),
            (("response", "clientDataJSON"), b64(b"[]")),
            (("response", "clientDataJSON"), b64(b"\xff")),
            (("response", "authenticatorData"), ""),
            (("response", "authenticatorData"), b64(bytes(37))),
            (("response", "authenticatorData"), b64(b"\xff" * 400)),
            (("response", "signature"), ""),
            (("response", "signature"), b64(bytes(70))),
            (("response", "userHandle"), 7),
        ],
    )
    async def test_what_is_malformed_is_refused_and_breaks_nothing(self, street, ada, path, value):
        _, authenticator = ada
        browser = street.browser()
        asked = await challenge(browser)
        credential = deepcopy(authenticator.get(asked["options"]))
        place = credential
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        error_of(await enter(browser, asked, credential), 401)
        assert browser.session_cookie is None
