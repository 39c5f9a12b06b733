"""schemathesis against `/openapi.json`: no 5xx, and no answer that the description does not have."""

from __future__ import annotations

import asyncio

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
from tests.http.programme_people import PROJECT, add_project, person_of
from transom.api import dependencies
from transom.app import create_app, key_store, open_database
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
    "project": PROJECT,
    "tier": "open",
    "kind": "new",
    "grant": None,
    "quotas": {"tokens_total": 5},
}

FOR_PEOPLE = ("/v1/applications", "/v1/grants")

# What only succeeds in the right state, and at most once; tests/http/test_programme.py leads there.
STATEFUL = ("PATCH /v1/applications/{id}", "POST /v1/applications/{id}/", "POST /v1/grants/{id}/")


@pytest.fixture(scope="module")
def server(tokenizer, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    own = settings(home)
    database = open_database(own)
    key = asyncio.run(key_store(own, database).create()).text
    add_project(database)
    database.close()
    with pytest.MonkeyPatch.context() as patch, Live(home, tokenizer) as live:
        patch.setattr(dependencies, "person_of", person_of)
        live.headers = {"authorization": f"Bearer {key}"}
        live.session = {"authorization": "Bearer ts_ada"}
        body = {"model": MODEL, "prompt": "hi"}
        record = httpx2.post(f"{live.url}/v1/completions", json=body, headers=live.headers).json()["id"]
        live.made = {"records": record} | granted(live)
        yield live


def granted(live):
    """An application, and the grant that it was given."""
    body = {"project": PROJECT, "tier": "open", "purpose": "Why?"}
    with httpx2.Client(base_url=f"{live.url}/v1", headers=live.session) as asking:
        application = asking.post("/applications", json=body).json()["id"]
        grant = asking.post(f"/applications/{application}/submit", json={"version": 1}).json()["grant"]
    return {"applications": application, "grants": grant}


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
        if positive and not case.path.startswith(FOR_PEOPLE):
            case.body["model"] = MODEL
            case.body["stream"] = case.body.get("stream_options") is not None or case.body.get("stream")
    if positive and "model" in (case.query or {}):
        case.query["model"] = MODEL
    if positive and case.path_parameters:
        known = {"id": server.made.get(case.path.split("/")[2]), "model": MODEL}
        case.path_parameters = {name: known[name] for name in case.path_parameters}


def test_the_description_is_valid_openapi(api):
    api.validate()


@pytest.mark.parametrize(("operation", "mode"), OPERATIONS, ids=lambda part: getattr(part, "value", part))
def test_an_operation_answers_as_it_is_described(server, api, operation, mode):
    method, path = operation.split()
    described = api[path][method]
    headers = (
        server.session if "Access" in DESCRIPTION["paths"][path][method.lower()]["tags"] else server.headers
    )
    if path == "/v1/reviews":
        headers = {"authorization": "Bearer ts_ria"}
    seen = set()

    @BRIEF
    @given(case=described.as_strategy(generation_mode=mode))
    def check(case):
        steer(case, server, mode)
        seen.add(case.call_and_validate(checks=CHECKS, headers=headers).status_code)

    check()
    assert mode == GenerationMode.NEGATIVE or operation.startswith(STATEFUL) or seen & {200, 201}
