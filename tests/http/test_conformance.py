"""schemathesis against `/openapi.json`: no 5xx, and no answer that the description does not have."""

from __future__ import annotations

import asyncio
from itertools import count

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http.door import HELLO, MODEL, settings
from tests.http.live import Live
from transom.access.entrance import Visitor
from transom.access.identities import Claim
from transom.app import create_app, entrance_maker, key_store, open_database
from transom.config import Settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BRIEF = budget(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
DESCRIPTION = create_app(Settings(), backends={}).openapi()
OPERATIONS = [
    (f"{method.upper()} {path}", mode)
    for path, methods in DESCRIPTION["paths"].items()
    for method, described in methods.items()
    for mode in GenerationMode
    # Nothing can be wrong with a request that has no parts.
    if mode == GenerationMode.POSITIVE or {"parameters", "requestBody"} & described.keys()
]


# What a description in JSON Schema cannot say: values that get past the checks that need the model.
STEERED = {
    "model": MODEL,
    "prompt": "The light",
    "messages": HELLO,
    "tokens": [5, 6],
    "max_tokens": 2,
    "max_completion_tokens": None,
    "logit_bias": {"5": 1.5},
    "stop_token_ids": [7],
    "best_of": None,
    "top_logprobs": None,
    "next": "/projects",
    "name": "Ada",
}

OF_PEOPLE = ("/v1/auth", "/v1/account")

# What only a mail, an authenticator or a provider could make good.
BEYOND_REACH = {
    "POST /v1/auth/links/redeem",
    "POST /v1/auth/passkeys",
    "POST /v1/auth/providers/{provider}",
    "GET /v1/auth/providers/{provider}/callback",
    "POST /v1/account/email/confirm",
    "POST /v1/account/passkeys",
    "DELETE /v1/account/sessions/{id}",
    "DELETE /v1/account/passkeys/{id}",
    "DELETE /v1/account/identities/{id}",
}


@pytest.fixture(scope="module")
def server(tokenizer, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    own = settings(home)
    database = open_database(own)
    key = asyncio.run(key_store(own, database).create()).text
    sessions = asyncio.run(sign_in_many(entrance_maker(own)(database), 2 * len(OPERATIONS)))
    database.close()
    with Live(home, tokenizer) as live:
        live.headers = {"authorization": f"Bearer {key}"}
        live.sessions, live.numbers = sessions, count()
        body = {"model": MODEL, "prompt": "hi"}
        live.made = httpx2.post(f"{live.url}/v1/completions", json=body, headers=live.headers).json()["id"]
        yield live


async def sign_in_many(entrance, number):
    """Sessions of as many people: some operations end the one that they are called with."""
    visitor = Visitor(carrier="token")
    claims = [Claim("https://id.example.org", str(each)) for each in range(number)]
    return [(await entrance.by_claim(claim, visitor)).text for claim in claims]


def headers_for(server, operation):
    """A key; below `/v1/account` and to sign out, a session that no other test has."""
    if "/v1/account" in operation or "sign-out" in operation:
        return {"authorization": f"Bearer {server.sessions.pop()}"}
    return server.headers | {"x-transom-csrf": "1"}


@pytest.fixture(scope="module")
def api(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def steer(case, server, mode):
    """Lead what is formed as described past the first refusal; leave one thing wrong in the rest."""
    positive = mode == GenerationMode.POSITIVE
    if isinstance(case.body, dict):
        case.body |= {
            name: value
            for name, value in STEERED.items()
            if name in case.body and (positive or (name == "model" and isinstance(case.body[name], str)))
        }
        if positive and not case.path.startswith(OF_PEOPLE):
            case.body["model"] = MODEL
            case.body["stream"] = case.body.get("stream_options") is not None or case.body.get("stream")
    if positive and isinstance(case.body, dict) and "email" in case.body:
        case.body["email"] = f"u{next(server.numbers)}@example.org"
    if positive and "model" in (case.query or {}):
        case.query["model"] = MODEL
    if positive and case.path_parameters:
        known = {"id": server.made, "model": MODEL, "provider": "nobody"}
        case.path_parameters = {name: known[name] for name in case.path_parameters}


def test_the_description_is_valid_openapi(api):
    api.validate()


@pytest.mark.parametrize(("operation", "mode"), OPERATIONS, ids=lambda part: getattr(part, "value", part))
def test_an_operation_answers_as_it_is_described(server, api, operation, mode):
    method, path = operation.split()
    described = api[path][method]
    seen, headers = set(), headers_for(server, operation)

    @BRIEF
    @given(case=described.as_strategy(generation_mode=mode))
    def check(case):
        steer(case, server, mode)
        seen.add(case.call_and_validate(checks=CHECKS, headers=headers).status_code)

    check()
    assert mode == GenerationMode.NEGATIVE or operation in BEYOND_REACH or seen & {200, 202, 204}
