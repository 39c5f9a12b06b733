"""Guests who sign in with a provider, at a street with two that run on loopback."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from tests.http.guests import SITE, Clock, open_street
from tests.issuer import CLIENT_ID, CLIENT_SECRET, Bend, running_issuer

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
