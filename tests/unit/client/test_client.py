"""Every method of both clients: what it sends, and what it makes of the reply."""

from __future__ import annotations

import base64
import inspect
import math
import struct
from hashlib import sha256
from typing import Any

import pytest
from client_standin import (
    DEPLOYMENT,
    KEY,
    Server,
    call,
    chat,
    completion,
    models,
    record_view,
    reply,
)

from transom import AsyncClient, Client
from transom.client import UnexpectedReply
from transom.errors import InvalidRequest

pytestmark = pytest.mark.anyio


async def test_a_completion_carries_its_text_record_seed_and_deployment(kind) -> None:
    server = Server({"POST /v1/completions": reply(completion())})
    answer = await call(kind, server, "complete", "The sky is", model="smol", temperature=0.5, seed=None)
    assert server.asked == {"model": "smol", "prompt": "The sky is", "temperature": 0.5}
    assert (answer.text, answer.record, answer.deployment) == (" blue", "rec_1", DEPLOYMENT)
    assert answer.seed == 2**63 - 1
    assert answer.usage.total_tokens == 5


async def test_token_ids_are_sent_as_they_are(kind) -> None:
    server = Server({"POST /v1/completions": reply(completion())})
    await call(kind, server, "complete", [[1, 2], (3, 4)], model="smol")
    assert server.asked["prompt"] == [[1, 2], [3, 4]]


async def test_a_text_alone_is_one_message_of_the_user(kind) -> None:
    server = Server({"POST /v1/chat/completions": reply(chat())})
    answer = await call(kind, server, "chat", "Colour?", model="smol")
    assert server.asked["messages"] == [{"role": "user", "content": "Colour?"}]
    assert answer.text == "Blue."
    assert answer.choices[0].finish_reason == "length"


async def test_the_key_is_sent_as_a_bearer_token(kind) -> None:
    server = Server({"GET /v1/models": reply(models())})
    await call(kind, server, "models")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_logprobs_of_both_endpoints_read_the_same(kind) -> None:
    legacy = {
        "tokens": ["The", " sky"],
        "token_logprobs": [None, -0.1000000014901161],
        "top_logprobs": [None, {" sky": -0.1000000014901161, " sea": -2.5}],
        "text_offset": [0, 3],
    }
    entry = {"token": " sky", "logprob": -0.1000000014901161, "bytes": [32, 115, 107, 121]}
    top = [entry, {"token": " sea", "logprob": -2.5, "bytes": None}]
    modern = {"content": [entry | {"top_logprobs": top}], "refusal": None}
    server = Server(
        {
            "POST /v1/completions": reply(completion(logprobs=legacy)),
            "POST /v1/chat/completions": reply(chat(logprobs=modern)),
        }
    )
    completed = await call(kind, server, "complete", "x", model="smol", logprobs=2, echo=True)
    chatted = await call(kind, server, "chat", "x", model="smol", logprobs=True, top_logprobs=2)
    first, second = completed.choices[0].logprobs.scored
    assert (first.logprob, first.top) == (None, ())
    assert (second,) == chatted.choices[0].logprobs.scored
    assert second == (" sky", -0.1000000014901161, ((" sky", -0.1000000014901161), (" sea", -2.5)))


async def test_prompt_logprobs_are_keyed_by_token_id_and_null_is_an_impossible_token(kind) -> None:
    entry = {"logprob": None, "rank": 9, "decoded_token": "x"}
    server = Server({"POST /v1/completions": reply(completion(prompt_logprobs=[None, {"12": entry}]))})
    answer = await call(kind, server, "complete", "x", model="smol", prompt_logprobs=1)
    first, second = answer.choices[0].prompt_logprobs
    assert first is None
    assert second[12].logprob == -math.inf


def inline(position: int, *logprobs: float, **more: Any) -> dict[str, Any]:
    data = struct.pack(f"<{len(logprobs)}f", *logprobs)
    told = {"position": position, "dtype": "float32", "shape": [len(logprobs)]}
    return told | {"b64": base64.b64encode(data).decode()} | more


async def test_measures_are_attributes_of_tokens_and_none_where_they_were_not_asked(kind) -> None:
    generated = {"token": " blue", "token_id": 5, "entropy": 1.5, "rank": 2, "kl": 0.25}
    prompted = [None, {"token": "x", "token_id": 9, "surprisal": None}]
    asked = {"measures": {"entropy": True}, "prompt_measures": {"surprisal": True}}
    whole = completion(measures=[generated], prompt_measures=prompted)
    server = Server(
        {
            "POST /v1/completions": reply(whole),
            "POST /v1/chat/completions": reply(chat(measures=[generated]) | {"prompt_measures": prompted}),
        }
    )
    completed = await call(kind, server, "complete", "x", model="smol", **asked)
    assert server.asked["measures"] == {"entropy": True}
    chatted = await call(kind, server, "chat", "x", model="smol", **asked)
    for answer, of_prompt in ((completed, completed.choices[0]), (chatted, chatted)):
        (token,) = answer.choices[0].measures
        assert (token.token, token.entropy, token.rank, token.kl) == (" blue", 1.5, 2, 0.25)
        assert token.surprisal is token.top_k_mass is None
        assert of_prompt.prompt_measures[0] is None
        assert of_prompt.prompt_measures[1].surprisal == math.inf


async def test_a_distribution_is_an_array_with_the_digest_that_its_record_holds(kind) -> None:
    body = completion(distributions=[inline(0, -0.5, -1.5, -math.inf)])
    server = Server({"POST /v1/completions": reply(body)})
    answer = await call(kind, server, "complete", "x", model="smol", distributions=[0])
    (told,) = answer.choices[0].distributions
    assert (told.position, told.logprobs.tolist()) == (0, [-0.5, -1.5, -math.inf])
    assert told.digest == "sha256:" + sha256(struct.pack("<3f", -0.5, -1.5, -math.inf)).hexdigest()
    assert "b64" not in repr(told)
    with pytest.raises(ValueError, match="read-only"):
        told.logprobs[0] = 0


@pytest.mark.parametrize(
    "broken", [{"shape": [2]}, {"b64": "?"}, {"dtype": "float16"}, {"shape": [1, 1]}], ids=str
)
async def test_a_distribution_that_is_not_whole_is_no_reply(kind, broken) -> None:
    server = Server({"POST /v1/completions": reply(completion(distributions=[inline(0, -0.5, **broken)]))})
    with pytest.raises(UnexpectedReply):
        await call(kind, server, "complete", "x", model="smol", distributions=[0])


async def test_fields_of_a_newer_server_are_ignored(kind) -> None:
    server = Server({"POST /v1/completions": reply(completion(novelty=1) | {"novelty": 2})})
    assert (await call(kind, server, "complete", "x", model="smol")).text == " blue"


async def test_text_and_messages_are_tokenized_each_under_its_name(kind) -> None:
    server = Server({"POST /tokenize": reply({"count": 2, "max_model_len": 8192, "tokens": [5, 6]})})
    tokens = await call(kind, server, "tokenize", "hi", model="smol", add_special_tokens=False)
    assert server.asked == {"model": "smol", "prompt": "hi", "add_special_tokens": False}
    assert tokens.tokens == (5, 6)
    await call(kind, server, "tokenize", [{"role": "user", "content": "hi"}], model="smol")
    assert server.asked == {"model": "smol", "messages": [{"role": "user", "content": "hi"}]}


async def test_tokens_become_text_again(kind) -> None:
    server = Server({"POST /detokenize": reply({"prompt": "hi"})})
    assert await call(kind, server, "detokenize", (5, 6), model="smol") == "hi"
    assert server.asked == {"model": "smol", "tokens": [5, 6]}


async def test_models_come_with_the_manifest_of_their_deployment(kind) -> None:
    server = Server({"GET /v1/models": reply(models("smol"))})
    (model,) = await call(kind, server, "models")
    assert (model.id, model.digest, model.max_model_len) == ("smol", DEPLOYMENT, 8192)
    assert model.deployment == {"policy": {"max_model_len": 8192}}


async def test_the_only_model_is_meant_where_none_is_named(kind) -> None:
    server = Server({"GET /v1/models": reply(models("smol")), "POST /v1/completions": reply(completion())})
    await call(kind, server, "complete", "x")
    assert server.asked["model"] == "smol"


async def test_a_choice_of_models_is_named_in_the_refusal(kind) -> None:
    server = Server({"GET /v1/models": reply(models("smol", "big"))})
    with pytest.raises(InvalidRequest, match="Name a model; served here: big, smol") as caught:
        await call(kind, server, "chat", "x")
    assert caught.value.param == "model"


async def test_the_only_model_is_looked_up_once() -> None:
    import httpx2

    server = Server({"GET /v1/models": reply(models("smol")), "POST /v1/completions": reply(completion())})
    with Client("http://transom.test", transport=httpx2.MockTransport(server)) as client:
        client.complete("x")
        client.complete("y")
    async with AsyncClient("http://transom.test", transport=httpx2.MockTransport(server)) as waiting:
        await waiting.complete("x")
        await waiting.complete("y")
    assert [request.method for request in server.requests] == ["GET", "POST", "POST"] * 2


SUMMARY = record_view().model_dump(exclude={"sequence", "digest", "envelope", "statement", "openings"})
PAGES = [
    {"data": [SUMMARY | {"id": "rec_3", "sequence": 3, "digest": "d"}], "after": "c1"},
    {"data": [SUMMARY | {"id": "rec_2", "sequence": 2, "digest": "d"}], "after": None},
]


async def test_a_page_of_records_is_asked_for_with_its_cursor(kind) -> None:
    server = Server({"GET /v1/records": reply(PAGES[0])})
    page = await call(kind, server, "records", after="c0", limit=5)
    assert dict(server.requests[0].url.params) == {"limit": "5", "after": "c0"}
    assert (page.data[0].id, page.after) == ("rec_3", "c1")


async def test_all_records_are_read_page_by_page(kind) -> None:
    server = Server({"GET /v1/records": [reply(page) for page in PAGES]})
    summaries = await call(kind, server, "all_records", limit=1)
    assert [summary.id for summary in summaries] == ["rec_3", "rec_2"]
    assert [request.url.params.get("after") for request in server.requests] == [None, "c1"]


async def test_a_record_is_read_whole(kind) -> None:
    view = record_view()
    server = Server({"GET /v1/records/rec_1": reply(view.model_dump())})
    assert await call(kind, server, "record", "rec_1") == view


async def test_a_record_id_cannot_wander_to_another_path(kind) -> None:
    server = Server({"GET /v1/records/../models": reply({})})
    with pytest.raises(UnexpectedReply):
        await call(kind, server, "record", "../models")
    assert server.requests[0].url.raw_path == b"/v1/records/..%2Fmodels"
    with pytest.raises(InvalidRequest):
        await call(kind, server, "record", "..")


async def test_a_replay_reports_its_level_and_first_difference(kind) -> None:
    report = {"record": "rec_1", "level": "OUTSIDE", "reason": "TOKEN at 17", "tokens": 18, "elapsed_s": 0.2}
    where = {"first_difference": {"sequence": 0, "position": 17}}
    server = Server({"POST /v1/records/rec_1/replay": reply(report | where)})
    found = await call(kind, server, "replay", "rec_1")
    assert (found.level, found.first_difference.position) == ("OUTSIDE", 17)


async def test_several_records_are_replayed_by_one_request(kind) -> None:
    margins = {"mean": 0.25, "largest": 3.5, "infinite": 1}
    reports = [
        {"record": "rec_1", "level": "EXACT", "tokens": 1, "elapsed_s": 1},
        {
            "record": "rec_2",
            "level": "OUTSIDE",
            "tokens": 4,
            "elapsed_s": 1,
            "differing": 2,
            "margins": margins,
        },
    ]
    server = Server({"POST /v1/records/replay": reply({"data": reports})})
    first, second = await call(kind, server, "replay_all", ["rec_1", "rec_2"])
    assert server.asked == {"ids": ["rec_1", "rec_2"]}
    assert (first.level, first.differing, first.margins) == ("EXACT", 0, None)
    assert (second.differing, second.margins.largest, second.margins.infinite) == (2, 3.5, 1)


async def test_answers_are_scored_and_judged(kind) -> None:
    token = {"token_id": 5, "token": " a", "logprob": None, "rank": 384, "top_logprobs": []}
    verdict = {"drawn": {"token_id": 6, "token": " b"}, "margin": None}
    answer = {
        "index": 0,
        "logprob": -1.5,
        "tokens": [token | verdict],
        "differing": 1,
        "would_be_drawn": False,
    }
    usage = {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}
    stamp = {"record": "rec_1", "seed": 3, "deployment": "sha256:ab"}
    said = {"id": "rec_1", "created": 1, "model": "smol", "transom": stamp, "items": [answer], "usage": usage}
    server = Server({"POST /v1/score": reply(said)})
    items = [{"prompt": "x", "completion": " a"}]
    found = await call(kind, server, "score", items, model="smol", seed=3, temperature=0.5)
    assert server.asked == {
        "model": "smol",
        "items": items,
        "seed": 3,
        "temperature": 0.5,
    }
    (scored,) = found.items[0].tokens
    assert (scored.logprob, scored.drawn.token, scored.margin) == (-math.inf, " b", None)
    assert (found.record, found.items[0].would_be_drawn) == ("rec_1", False)


async def test_stream_is_no_option(kind) -> None:
    with pytest.raises(TypeError, match="stream_chat"):
        await call(kind, Server(), "chat", "x", model="smol", stream=True)


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    def public(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(of).parameters) for name, of in methods if name[0] != "_"}

    assert public(Client) == public(AsyncClient)


def test_importing_transom_does_not_load_the_client() -> None:
    import subprocess
    import sys

    code = "import sys, transom; sys.exit('transom.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_transom_has_no_attributes_but_its_own() -> None:
    import transom

    with pytest.raises(AttributeError, match="nonsense"):
        _ = transom.nonsense  # type: ignore[attr-defined]
