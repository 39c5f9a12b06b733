"""schemathesis against `/openapi.json`: no 5xx, and no answer that the description does not have."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from itertools import count

import httpx2
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from safetensors.numpy import save
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.http.door import HELLO, MODEL, settings
from tests.http.live import Live
from tests.http.programme_people import PROJECT, add_project
from transom.access.people.people import give_role
from transom.access.sign_in.entrance import Visitor
from transom.access.sign_in.identities import Claim
from transom.app import create_app, entrance_maker, mailer_of, open_database, open_office
from transom.config import Settings
from transom.schema.statements import VERSION
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.notes import Note
from transom.tlog.proofs import Proof
from transom.tlog.tiles import tile_at

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
    "project": PROJECT,
    "tier": "open",
    "kind": "new",
    "grant": None,
    "quotas": {"tokens_total": 5},
    "runs": {"a": {"input": "The light", "read": {"x": {"at": "resid_post.*"}}}},
    "return": ["a.x"],
    "derive": {},
    "sweep": None,
}


KIND = "application/vnd.safetensors"
ARTIFACT = save({"v": np.ones(3, np.float32)})


@schemathesis.serializer(KIND)
def _as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()


# What only succeeds in the right state, and at most once; tests/http/test_programme.py leads there.
STATEFUL = ("PATCH /v1/applications/{id}", "POST /v1/applications/{id}/", "POST /v1/grants/{id}/")

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
    "DELETE /v1/traces/{id}/file",
}


NUMBERS = count()
STREAMS = {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"}
OF_MODELS = {*STREAMS, "/v1/traces", "/v1/traces/explain"}
OF_PEOPLE = {"Projects", "Keys", "Terms", "Rights"}


@pytest.fixture(scope="module")
def server(tokenizer, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    own = settings(home)
    database = open_database(own)
    mailer = mailer_of(own)
    office = open_office(own, database, mailer)
    entrance = entrance_maker(own, mailer)(office)
    key = asyncio.run(office.keys.create()).text
    sessions = asyncio.run(sign_in_many(entrance, 2 * len(OPERATIONS)))
    asyncio.run(prepare(database, entrance, sessions[0]))
    database.close()
    with Live(home, tokenizer) as live:
        live.headers = {"authorization": f"Bearer {key}"}
        live.session = {"authorization": f"Bearer {sessions.pop(0)}"}
        live.sessions = sessions
        body = {"model": MODEL, "prompt": "hi"}
        record = httpx2.post(f"{live.url}/v1/completions", json=body, headers=live.headers).json()["id"]
        live.made = {"records": record} | granted(live)
        plan = {"model": MODEL, "runs": STEERED["runs"], "return": ["a.x"], "format": "parts"}
        reply = httpx2.post(f"{live.url}/v1/traces", json=plan, headers=live.headers)
        live.made["traces"] = reply.json()["id"]
        STEERED["ids"] = [record]
        live.logged = logged(live, record)
        yield live


def logged(live, record):
    """Parts of paths below the log, once the record is in it."""
    with httpx2.Client(base_url=live.url, headers=live.headers) as asking:
        while (reply := asking.get(f"/v1/records/{record}/receipt")).status_code == 404:
            time.sleep(0.05)
        proof = Proof.parse(reply.text)
        size = Checkpoint.parse(Note.parse(proof.checkpoint).text).size
        deployment = asking.get("/v1/models").json()["data"][0]["digest"]
        challenge = asking.post(f"/v1/challenges/{proof.index}").json()["digest"]
    tile = tile_at(0, 0, size).path.removeprefix("tile/")
    return {
        "/log/tile/{path}": {"path": tile},
        "/log/documents/{digest}": {"digest": deployment},
        "/v1/challenges/{digest}": {"digest": challenge},
        "/v1/challenges/{index}": {"index": proof.index},
        "/schema/record-{version}.json": {"version": VERSION},
    }


async def sign_in_many(entrance, number):
    """Sessions of as many people: some operations end the one that they are called with."""
    visitor = Visitor(carrier="token")
    claims = [Claim("https://id.example.org", str(each)) for each in range(number)]
    return [(await entrance.by_claim(claim, visitor)).text for claim in claims]


async def prepare(database, entrance, session):
    """A project of the first of them, who may review too."""
    person = (await entrance.sessions.resolve(session, "token")).person
    now = datetime.now(UTC)
    await database.write(lambda c: give_role(c, person.id, "reviewer", by="test", now=now))
    await asyncio.to_thread(add_project, database, owner=person.id)


def granted(live):
    """An application, and the grant that it was given."""
    body = {"project": PROJECT, "tier": "open", "purpose": "Why?"}
    with httpx2.Client(base_url=f"{live.url}/v1", headers=live.session) as asking:
        application = asking.post("/applications", json=body).json()["id"]
        grant = asking.post(f"/applications/{application}/submit", json={"version": 1}).json()["grant"]
    return {"applications": application, "grants": grant}


def headers_for(server, operation):
    """A key; a session for what people do, and one of its own for what may end it."""
    method, path = operation.lower().split()
    if "/v1/account" in path or "sign-out" in path:
        return {"authorization": f"Bearer {server.sessions.pop()}"}
    wanted = DESCRIPTION["paths"][path][method].get("security", ())
    if any("Session" in each for each in wanted):
        return server.session
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
        if positive and case.path in OF_MODELS:
            case.body["model"] = MODEL
        if positive and case.path in STREAMS:
            case.body["stream"] = case.body.get("stream_options") is not None or case.body.get("stream")
    if positive and isinstance(case.body, dict) and "email" in case.body:
        case.body["email"] = f"u{next(NUMBERS)}@example.org"
    if positive and case.path == "/v1/score":
        # A question is one of two fields, and drawing needs a seed.
        kept = {name: case.body[name] for name in ("logprobs", "measures") if name in case.body}
        case.body = {"model": MODEL, "prompt": "The light", "completion": [5, 6]} | kept
    if positive and "model" in (case.query or {}):
        case.query["model"] = MODEL
    if positive and case.media_type == KIND:
        case.body = ARTIFACT
    # What one of these deletes, others are to find.
    deletes = case.method == "DELETE" and case.path.startswith("/v1/traces/")
    if positive and case.path_parameters and not deletes:
        known = {"id": server.made.get(case.path.split("/")[2]), "model": MODEL, "provider": "nobody"}
        case.path_parameters |= {name: known[name] for name in case.path_parameters if known.get(name)}
        case.path_parameters |= server.logged.get(case.path, {})


def test_the_description_is_valid_openapi(api):
    api.validate()


@pytest.mark.parametrize(("operation", "mode"), OPERATIONS, ids=lambda part: getattr(part, "value", part))
def test_an_operation_answers_as_it_is_described(server, api, operation, mode):
    method, path = operation.split()
    described = api[path][method]
    seen, headers = set(), headers_for(server, operation)
    if "/artifacts/" in path:
        kept = httpx2.post(
            f"{server.url}/v1/artifacts", content=ARTIFACT, headers=headers | {"content-type": KIND}
        )
        server.made["artifacts"] = kept.json()["id"]

    @BRIEF
    @given(case=described.as_strategy(generation_mode=mode))
    def check(case):
        steer(case, server, mode)
        seen.add(case.call_and_validate(checks=CHECKS, headers=headers).status_code)

    check()
    # What people do is about projects and keys that a strategy cannot know; those are tested by hand.
    of_people = bool(OF_PEOPLE & set(described.definition.raw["tags"]))
    beyond = of_people or operation in BEYOND_REACH or operation.startswith(STATEFUL)
    assert mode == GenerationMode.NEGATIVE or beyond or seen & {200, 201, 202, 204}
