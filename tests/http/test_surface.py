"""Paths, models, the tokenizer's doors, and what `/openapi.json` says of them all."""

from __future__ import annotations

import json

import pytest

from tests.fakes import FakeBackend
from tests.http.door import HELLO, MODEL, settings
from transom.app import create_app
from transom.errors import EngineUnavailable

pytestmark = pytest.mark.anyio

BODIES = {
    "/v1/completions": {"prompt": "hi", "max_tokens": 1, "seed": 1},
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1, "seed": 1},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [5]},
}
PAGES = ["/tokenizer_info", f"/v1/points?model={MODEL}", "/v1/models", f"/v1/models/{MODEL}", "/v1/records"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_below_a_models_path_need_not_name_it(door, path):
    named = await door.post(path, {"model": MODEL} | BODIES[path])
    for body in (BODIES[path], {"model": None} | BODIES[path], {"model": MODEL} | BODIES[path]):
        reply = await door.post(f"/models/{MODEL}{path}", body)
        assert reply.status_code == 200, reply.text
        assert reply.json().get("choices") == named.json().get("choices")
        assert reply.json().keys() == named.json().keys()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", ["other", ""])
async def test_a_body_that_names_another_model_than_its_path_is_refused(door, path, model):
    reply = await door.post(f"/models/{MODEL}{path}", {"model": model} | BODIES[path])
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "model"


@pytest.mark.parametrize("page", ["/tokenizer_info?model=other", "/v1/models/other"])
async def test_a_page_that_names_another_model_than_its_path_is_refused(door, page):
    reply = await door.client.get(f"/models/{MODEL}{page}")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "model"


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_below_a_models_path_is_the_same_page(door, page):
    one, other = await door.client.get(page), await door.client.get(f"/models/{MODEL}{page}")
    assert one.status_code == other.status_code == 200
    assert one.json() == other.json()


@pytest.mark.parametrize("page", [*PAGES, *BODIES])
async def test_nothing_is_below_a_model_that_is_not_served(door, page):
    method = "POST" if page in BODIES else "GET"
    reply = await door.client.request(method, f"/models/nobody{page}", json=BODIES.get(page))
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


async def test_a_record_is_read_and_replayed_below_a_models_path(door):
    record_id = (await door.complete(max_tokens=1))["id"]
    assert (await door.client.get(f"/models/{MODEL}/v1/records/{record_id}")).json()["id"] == record_id
    reply = await door.client.post(f"/models/{MODEL}/v1/records/{record_id}/replay")
    assert reply.json()["level"] == "EXACT"


async def test_models_are_listed_in_openais_shape_with_their_digests(door):
    listed = (await door.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["created"]) == (MODEL, "model", 1_700_000_000)
    assert model["digest"] == door.backend.served.deployment.digest
    assert model["max_model_len"] == 256
    assert (await door.client.get(f"/v1/models/{MODEL}")).json() == model


async def test_an_unknown_model_is_404(door):
    reply = await door.client.get("/v1/models/nobody")
    assert reply.status_code == 404
    assert MODEL in reply.json()["error"]["message"]


class Loading(FakeBackend):
    """A backend whose engine never came up."""

    def __init__(self, name, tokenizer):
        super().__init__(name, tokenizer)
        del self.served

    def __getattr__(self, name):
        if name == "served":
            raise EngineUnavailable("still loading")
        raise AttributeError(name)


class TestWhileOneModelLoads:
    @pytest.fixture
    async def door(self, own_door):
        own_door.house.backends["late"] = Loading("late", own_door.backend.tokenizer)
        return own_door

    async def test_the_others_are_listed(self, door):
        listed = (await door.client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == [MODEL]

    async def test_it_is_a_503_by_its_name(self, door):
        for path in ("/v1/models/late", "/models/late/v1/models"):
            assert (await door.client.get(path)).status_code == 503

    @pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_is_asked_of_it_is_a_503_also_when_streamed(self, door, path, stream):
        reply = await door.post(path, {"model": "late", "stream": stream} | BODIES[path])
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0

    async def test_the_server_is_not_ready(self, door):
        reply = await door.client.get("/ready")
        assert (reply.status_code, reply.json()) == (503, {MODEL: True, "late": False})

    async def test_tokenizer_info_needs_a_name(self, door):
        reply = await door.client.get("/tokenizer_info")
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "model"
        assert (await door.client.get(f"/tokenizer_info?model={MODEL}")).status_code == 200


async def test_health_and_ready(door):
    assert (await door.client.get("/health")).json() == {"status": "ok"}
    assert (await door.client.get("/ready")).json() == {MODEL: True}


@pytest.mark.parametrize(("special", "bos"), [({}, 1), ({"add_special_tokens": False}, 0)])
async def test_tokenize_gives_ids_and_their_number(door, special, bos):
    reply = await door.post("/tokenize", {"model": MODEL, "prompt": "The light"} | special)
    body = reply.json()
    expected = door.backend.tokenizer.encode("The light", add_special_tokens=bool(bos))
    assert body == {"count": len(expected), "max_model_len": 256, "tokens": expected}


async def test_tokenize_spells_tokens_when_asked(door):
    body = {"model": MODEL, "prompt": "The \U0001f600", "return_token_strs": True}
    told = (await door.post("/tokenize", body)).json()
    assert told["token_strs"] == [door.backend.tokenizer.token_text(i) for i in told["tokens"]]


async def test_tokenize_renders_messages_as_chat_does(door):
    told = (await door.post("/tokenize", {"model": MODEL, "messages": HELLO})).json()
    answer = await door.chat(max_tokens=1, return_token_ids=True)
    assert told["tokens"] == answer["prompt_token_ids"]


async def test_an_empty_prompt_has_no_tokens_but_the_special_ones(door):
    body = {"model": MODEL, "prompt": "", "add_special_tokens": False}
    assert (await door.post("/tokenize", body)).json()["tokens"] == []
    assert (await door.post("/tokenize", {"model": MODEL, "prompt": ""})).json()["tokens"] == [1]


@pytest.mark.parametrize("text", ["", "The light", "\0\n \u00e9\u4f60\U0001f600", "<|im_start|>x"])
async def test_detokenize_is_the_way_back(door, text):
    asked = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    tokens = (await door.post("/tokenize", asked)).json()["tokens"]
    assert (await door.post("/detokenize", {"model": MODEL, "tokens": tokens})).json() == {"prompt": text}


async def test_tokenizer_info_has_what_lm_eval_reads(door):
    told = (await door.client.get("/tokenizer_info")).json()
    assert told["bos_token"] == "<|im_start|>"
    assert told["eos_token"] == "<|im_end|>"
    assert "im_start" in told["chat_template"]
    assert told == (await door.client.get(f"/tokenizer_info?model={MODEL}")).json()


OPEN = {"GET /health", "GET /ready", "GET /v1/auth/providers", "GET /v1/terms", "GET /v1/terms/{version}"}
LOG = {
    "GET /log/checkpoint",
    "GET /log/tile/{path}",
    "GET /log/documents/{digest}",
    "GET /.well-known/transom-keys",
    "GET /schema/record-{version}.json",
    "POST /v1/challenges/{index}",
    "GET /v1/challenges",
    "GET /v1/challenges/{digest}",
    "GET /v1/transparency",
}
"""Open too: whoever checks an operator needs no key of theirs."""
PUBLIC = {"GET /v1/programme", "GET /v1/programme/statistics", "GET /v1/scopes"}

PROGRAMME = {
    "GET /v1/applications",
    "POST /v1/applications",
    "GET /v1/applications/{id}",
    "PATCH /v1/applications/{id}",
    "POST /v1/applications/{id}/submit",
    "POST /v1/applications/{id}/withdraw",
    "POST /v1/applications/{id}/comment",
    "POST /v1/applications/{id}/appeal",
    "POST /v1/applications/{id}/start-review",
    "POST /v1/applications/{id}/ask-changes",
    "POST /v1/applications/{id}/approve",
    "POST /v1/applications/{id}/decline",
    "GET /v1/reviews",
    "GET /v1/grants",
    "GET /v1/grants/{id}",
    "POST /v1/grants/{id}/progress",
    "POST /v1/grants/{id}/end",
}


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    return create_app(settings(tmp_path_factory.mktemp("home")), backends={}).openapi()


def operations(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def went_well(status):
    return status[0] in "23"


def test_the_description_names_every_path_once(description):
    assert {name for name, _ in operations(description)} == {
        "GET /health",
        "GET /ready",
        "POST /tokenize",
        "POST /detokenize",
        "GET /tokenizer_info",
        "POST /v1/completions",
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/points",
        "POST /v1/traces",
        "POST /v1/traces/explain",
        "GET /v1/artifacts",
        "POST /v1/artifacts",
        "GET /v1/artifacts/{id}",
        "DELETE /v1/artifacts/{id}",
        "GET /v1/artifacts/{id}/content",
        "GET /v1/traces/{id}/file",
        "DELETE /v1/traces/{id}/file",
        "GET /v1/records",
        "GET /v1/records/{id}",
        "POST /v1/records/{id}/replay",
        "POST /v1/records/replay",
        "POST /v1/score",
        "POST /v1/auth/links",
        "POST /v1/auth/links/redeem",
        "POST /v1/auth/passkeys/challenge",
        "POST /v1/auth/passkeys",
        "GET /v1/auth/providers",
        "POST /v1/auth/providers/{provider}",
        "GET /v1/auth/providers/{provider}/callback",
        "POST /v1/auth/sign-out",
        "GET /v1/account",
        "PATCH /v1/account",
        "DELETE /v1/account",
        "GET /v1/account/export",
        "POST /v1/account/email",
        "POST /v1/account/email/confirm",
        "GET /v1/account/sessions",
        "POST /v1/account/sessions",
        "DELETE /v1/account/sessions",
        "DELETE /v1/account/sessions/{id}",
        "GET /v1/account/passkeys",
        "POST /v1/account/passkeys/challenge",
        "POST /v1/account/passkeys",
        "DELETE /v1/account/passkeys/{id}",
        "GET /v1/account/identities",
        "DELETE /v1/account/identities/{id}",
        "GET /v1/usage",
        "GET /v1/records/{id}/receipt",
        "POST /v1/seeds",
        *LOG,
        *PUBLIC,
        *PROGRAMME,
        "POST /v1/projects",
        "GET /v1/projects",
        "GET /v1/projects/{id}",
        "PATCH /v1/projects/{id}",
        "DELETE /v1/projects/{id}",
        "GET /v1/projects/{id}/export",
        "GET /v1/projects/{id}/members",
        "PUT /v1/projects/{id}/members/{person_id}",
        "DELETE /v1/projects/{id}/members/{person_id}",
        "POST /v1/projects/{id}/transfer",
        "POST /v1/projects/{id}/invitations",
        "GET /v1/projects/{id}/invitations",
        "DELETE /v1/projects/{id}/invitations/{invitation}",
        "POST /v1/invitations/accept",
        "POST /v1/invitations/decline",
        "POST /v1/keys",
        "GET /v1/keys",
        "POST /v1/keys/{id}/rotate",
        "DELETE /v1/keys/{id}",
        "GET /v1/terms",
        "GET /v1/terms/standing",
        "GET /v1/terms/{version}",
        "POST /v1/terms/{version}/accept",
        "GET /v1/trail",
    }


def test_every_operation_documents_the_errors_it_can_give_and_no_others(description):
    for name, operation in operations(description):
        statuses = set(operation["responses"])
        assert any(went_well(status) for status in statuses)
        assert "422" not in statuses, name
        if name not in OPEN | PUBLIC | LOG:
            assert "401" in statuses, name
        if "requestBody" in operation:
            assert {"400", "404", "413", "415"} <= statuses, name
        if {"OpenAI", "Tokenizer"} & set(operation["tags"]):
            assert "503" in statuses, name
    assert "ValidationError" not in json.dumps(description)


def test_every_error_is_documented_in_the_one_shape(description):
    for name, operation in operations(description):
        for status, response in operation["responses"].items():
            if not went_well(status) and name != "GET /ready":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (name, status)


def test_a_generating_operation_documents_both_of_its_forms(description):
    for path in ("/v1/completions", "/v1/chat/completions"):
        response = description["paths"][path]["post"]["responses"]["200"]
        assert set(response["content"]) == {"application/json", "text/event-stream"}
        assert "x-transom-record" in response["headers"]


@pytest.mark.parametrize("path", ["/v1/records?limt=5", "/tokenizer_info?modle=x", "/v1/models?limit=3"])
async def test_an_unknown_query_parameter_is_refused_by_name(door, path):
    reply = await door.client.get(path)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "unknown_parameter"
    assert reply.json()["error"]["param"] == path.partition("?")[2].partition("=")[0]


async def test_a_trailing_slash_is_another_path(door):
    assert (await door.client.get("/v1/models/")).status_code == 404


async def test_tokenizing_needs_no_model_where_there_is_one(door):
    """lm-eval asks for the tokenizer before it names a model."""
    for path in ("/tokenize", "/detokenize"):
        named = await door.post(path, {"model": MODEL} | BODIES[path])
        unnamed = await door.client.post(path, json=BODIES[path])
        assert unnamed.json() == named.json()
        assert unnamed.status_code == 200
