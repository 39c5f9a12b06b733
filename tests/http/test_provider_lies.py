"""Signing in with a provider that lies in one way at a time: its tokens, keys, pages and redirects."""

from __future__ import annotations

import base64
import json

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.http import provider_guests
from tests.http.guests import error_of
from tests.http.provider_guests import begin, sign_in, visit
from tests.issuer import CLIENT_ID, CLIENT_SECRET, Bend

pytestmark = pytest.mark.anyio

two_issuers, issuer = provider_guests.two_issuers, provider_guests.issuer
street = provider_guests.street


@pytest.mark.parametrize("page", [{}, {"id": None}, {"id": ""}, {"id": True}, {"id": {}}, {"id": "x" * 256}])
async def test_a_user_page_without_a_subject_is_nobody(street, issuer, page):
    issuer.page = page
    assert "no_subject" in error_of(await sign_in(street.browser(), "hub"), 401)["message"]
    assert "GET /user" in issuer.asked


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
