"""`/v1/score`: any answer, token by token, and whether it would have been drawn."""

from __future__ import annotations

import json
import math

import pytest

from tests.http.door import HELLO, MODEL, open_door
from tests.http.grants import PROGRAMME, holder
from tests.http.test_metering import error_of, rows

pytestmark = pytest.mark.anyio

ASKED = {"model": MODEL, "prompt": [5, 6, 7], "completion": [70, 71, 72, 73]}


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


async def score(door, **body):
    reply = await door.post("/v1/score", ASKED | body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ids(item) -> list[int]:
    return [token["token_id"] for token in item["tokens"]]


async def test_an_answer_is_scored_token_by_token_as_a_prompt_is(own_door):
    said = await score(own_door, logprobs=2, measures={"entropy": True, "rank": True})
    (item,) = said["items"]
    assert ids(item) == [70, 71, 72, 73]
    echo = await own_door.complete(
        prompt=[5, 6, 7, 70, 71, 72, 73],
        max_tokens=0,
        echo=True,
        prompt_logprobs=2,
        prompt_measures={"entropy": True, "rank": True},
    )
    known, measured = echo["choices"][0]["prompt_logprobs"][3:], echo["choices"][0]["prompt_measures"][3:]
    for token, scores, measures in zip(item["tokens"], known, measured, strict=True):
        actual = scores[str(token["token_id"])]
        assert (token["logprob"], token["rank"]) == (actual["logprob"], actual["rank"])
        assert token["token"] == actual["decoded_token"]
        assert [each["token_id"] for each in token["top_logprobs"]] == [int(i) for i in scores][-2:]
        assert token["measures"] == {"entropy": measures["entropy"], "rank": measures["rank"]}
        assert "drawn" not in token
    assert item["logprob"] == math.fsum(token["logprob"] for token in item["tokens"])
    assert "would_be_drawn" not in item
    assert said["usage"] == {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0}, {"temperature": 0.5, "logit_bias": {"70": 8}}, {"seed": -3}], ids=str
)
async def test_what_the_model_generates_it_would_draw(own_door, params):
    params = {"seed": 11} | params
    made = await own_door.complete(
        prompt=[5, 6, 7], max_tokens=9, ignore_eos=True, return_token_ids=True, logprobs=0, **params
    )
    answer = made["choices"][0]["token_ids"]
    (item,) = (await score(own_door, completion=answer, **params))["items"]
    assert (item["would_be_drawn"], item["differing"]) == (True, 0)
    assert [token["drawn"]["token_id"] for token in item["tokens"]] == answer
    assert {token["margin"] for token in item["tokens"]} == {0.0}
    logprobs = [token["logprob"] for token in item["tokens"]]
    assert logprobs == made["choices"][0]["logprobs"]["token_logprobs"]


async def test_what_it_would_not_draw_is_found_in_its_place(own_door):
    made = await own_door.complete(
        prompt=[5, 6, 7], max_tokens=9, ignore_eos=True, seed=1, return_token_ids=True
    )
    answer = made["choices"][0]["token_ids"]
    answer[4] = 300 if answer[4] != 300 else 301
    (item,) = (await score(own_door, completion=answer, seed=1))["items"]
    assert not item["would_be_drawn"]
    assert [token["margin"] > 0 for token in item["tokens"][:5]] == [False] * 4 + [True]
    (other,) = (await score(own_door, completion=made["choices"][0]["token_ids"], seed=2))["items"]
    assert other["differing"] > 3


async def test_a_seed_changes_no_score(own_door):
    plain, seeded = await score(own_door, logprobs=3), await score(own_door, logprobs=3, seed=4)
    for left, right in zip(plain["items"][0]["tokens"], seeded["items"][0]["tokens"], strict=True):
        assert left == {name: value for name, value in right.items() if name not in {"drawn", "margin"}}


async def test_many_answers_are_scored_at_once(own_door):
    items = [
        {"prompt": "The light", "completion": " comes through"},
        {"messages": HELLO, "completion": "There is."},
        {"prompt": [5], "completion": [2, 6]},
    ]
    said = (
        await own_door.post("/v1/score", {"model": MODEL, "items": items, "logprobs": 1, "seed": 3})
    ).json()
    assert [item["index"] for item in said["items"]] == [0, 1, 2]
    spelled = ["".join(token["token"] for token in item["tokens"]) for item in said["items"][:2]]
    assert spelled == [" comes through", "There is."]
    # An answer goes on behind an end of sequence.
    assert ids(said["items"][2]) == [2, 6]
    for index, item in enumerate(items):
        alone = (await own_door.post("/v1/score", {"model": MODEL, "logprobs": 1, "seed": 3} | item)).json()
        assert alone["items"][0]["tokens"] == said["items"][index]["tokens"]


async def test_a_model_may_be_named_by_the_path(own_door):
    body = {name: value for name, value in ASKED.items() if name != "model"}
    reply = await own_door.post(f"/models/{MODEL}/v1/score", body)
    assert reply.status_code == 200
    assert (await own_door.replay(reply.json()["id"]))["level"] == "EXACT"


@pytest.mark.parametrize("more", [{}, {"seed": 5}, {"seed": 5, "logprobs": 4, "measures": {"entropy": True}}])
async def test_a_score_is_a_record_that_says_no_token_was_drawn(own_door, more):
    said = await score(own_door, **more)
    record = await own_door.record(said["id"])
    predicate, openings = record["statement"]["predicate"], record["openings"]
    assert (record["endpoint"], record["status"]) == ("/v1/score", "complete")
    assert predicate["request"]["sampling"]["max_tokens"] == 0
    assert predicate["output"][0]["tokens"] == 0
    assert openings["prompts"][0]["token_ids"] == [5, 6, 7, 70, 71, 72, 73]
    assert openings["sequences"][0]["token_ids"]["token_ids"] == []
    kept = [pairs[0] for pairs in openings["sequences"][0]["prompt_logprobs"][3:]]
    told = [[token["token_id"], token["logprob"]] for token in said["items"][0]["tokens"]]
    assert kept == told
    assert json.loads(openings["request"]["json"]) == ASKED | more
    report = await own_door.replay(said["id"])
    assert (report["level"], report["tokens"]) == ("EXACT", 0)


async def test_a_score_of_messages_and_of_many_is_rendered_anew_when_it_is_replayed(own_door):
    items = [{"messages": HELLO, "completion": "There is."}, {"prompt": "A", "completion": "B"}]
    said = (await own_door.post("/v1/score", {"model": MODEL, "items": items, "seed": 2})).json()
    assert (await own_door.replay(said["id"]))["level"] == "EXACT"


async def test_a_score_that_is_off_by_one_bit_is_found(own_door):
    said = await score(own_door)
    own_door.backend.knobs.shade_at = 5
    report = await own_door.replay(said["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", "PROMPT LOGPROBS")


WRONG = {
    "no answer": ({"completion": None}, "completion"),
    "an empty answer": ({"completion": ""}, "completion"),
    "an answer of no tokens": ({"completion": []}, "completion"),
    "no question": ({"prompt": None}, "prompt"),
    "two questions": ({"messages": HELLO}, "prompt"),
    "an empty question": ({"prompt": []}, "prompt"),
    "an unknown token": ({"completion": [5, 384]}, "completion"),
    "a token below 0": ({"completion": [-1]}, "completion.0"),
    "an unknown token in the question": ({"prompt": [9999]}, "prompt"),
    "neither text nor ids": ({"completion": {"text": "a"}}, "completion"),
    "text among ids": ({"completion": [5, "a"]}, "completion"),
    "too long an answer": ({"completion": [5] * 254}, "completion"),
    "too long a question": ({"prompt": [5] * 256}, "prompt"),
    "too many likeliest": ({"logprobs": 21}, "logprobs"),
    "a mass of too many": ({"measures": {"top_k_mass": 385}}, "measures.top_k_mass"),
    "a divergence": ({"measures": {"kl": True}}, "measures.kl"),
    "a temperature and no seed": ({"temperature": 0.5}, "temperature"),
    "a filter and no seed": ({"top_k": 5}, "top_k"),
    "a temperature that is no number": ({"temperature": "hot", "seed": 1}, "temperature"),
    "a temperature below 0": ({"temperature": -1, "seed": 1}, "temperature"),
    "a seed that is none": ({"seed": 1.5}, "seed"),
    "a bias of no token": ({"seed": 1, "logit_bias": {"900": 1}}, "logit_bias.900"),
    "items beside an answer": ({"items": [{"prompt": "a", "completion": "b"}]}, "prompt"),
    "a field that there is not": ({"max_tokens": 5}, "max_tokens"),
    "a stream": ({"stream": True}, "stream"),
}


@pytest.mark.parametrize(("more", "param"), WRONG.values(), ids=WRONG.keys())
async def test_what_cannot_be_scored_is_refused_by_name(own_door, more, param):
    reply = await own_door.post("/v1/score", ASKED | more)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert (await own_door.client.get("/v1/records")).json()["data"] == []


ITEMS = {
    "none": ([], "items"),
    "too many": ([{"prompt": "a", "completion": "b"}] * 257, "items"),
    "one without an answer": ([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], "items.1.completion"),
    "one with an unknown token": ([{"prompt": [1], "completion": [400]}], "items.0.completion"),
    "one without a question": ([{"completion": "b"}], "items.0.prompt"),
    "one of another role": (
        [{"messages": [{"role": "judge", "content": "x"}], "completion": "b"}],
        "items.0.messages.0.role",
    ),
    "one that the template refuses": (
        [{"messages": [{"role": "developer", "content": "x"}], "completion": "b"}],
        "items.0.messages",
    ),
}


@pytest.mark.parametrize(("items", "param"), ITEMS.values(), ids=ITEMS.keys())
async def test_the_item_at_fault_is_named(own_door, items, param):
    reply = await own_door.post("/v1/score", {"model": MODEL, "items": items})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


async def test_no_number_is_nan(own_door):
    content = json.dumps(ASKED | {"seed": 1}).replace("[5, 6, 7]", "[5, NaN]")
    reply = await own_door.client.post(
        "/v1/score", content=content, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_json"


async def test_an_unknown_model_is_a_404(own_door):
    reply = await own_door.post("/v1/score", ASKED | {"model": "another"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (404, "model")


async def test_without_a_key_nothing_is_scored(own_door):
    reply = await own_door.client.post("/v1/score", json=ASKED, headers={"authorization": ""})
    assert reply.status_code == 401


async def test_an_engine_that_fails_makes_a_failed_record(own_door):
    own_door.backend.knobs.fail_after = 2
    reply = await own_door.post("/v1/score", ASKED | {"seed": 1})
    assert reply.status_code == 500
    own_door.backend.knobs.fail_after = None
    record = await own_door.record(reply.headers["x-transom-record"])
    assert record["status"] == "failed"
    report = await own_door.replay(record["id"])
    assert (report["level"], report["reason"]) == ("UNREPLAYABLE", "EMPTY")


class TestWhoMay:
    async def test_scores_need_their_scope_and_verdicts_that_of_sampling_too(self, door):
        someone = await holder(door, "wide")
        for scopes, more, missing in (
            (["model:sample"], {}, "model:score"),
            (["model:score"], {"seed": 1}, "model:sample"),
            (["model:score", "model:sample"], {"seed": 1, "logit_bias": {"5": 1}}, "model:bias"),
        ):
            narrow = await someone.another_key(scopes=scopes)
            headers = {"authorization": f"Bearer {narrow.key}"}
            error = error_of(await door.client.post("/v1/score", json=ASKED | more, headers=headers), 403)
            assert error["code"] == "insufficient_scope"
            assert missing in error["message"]
        only = await someone.another_key(scopes=["model:score"])
        headers = {"authorization": f"Bearer {only.key}"}
        assert (await door.client.post("/v1/score", json=ASKED, headers=headers)).status_code == 200

    async def test_whoever_is_over_their_quota_is_told_so(self, door):
        someone = await holder(door)
        headers = {"authorization": f"Bearer {someone.key}"}
        long = {"prompt": [5] * 200, "completion": [6] * 50}
        assert (await door.client.post("/v1/score", json=ASKED | long, headers=headers)).status_code == 200
        error = error_of(await door.client.post("/v1/score", json=ASKED | long, headers=headers), 429)
        assert error["layer"] == "quota"
        assert len(door.backend.taken) == 1

    @pytest.mark.parametrize(
        ("more", "numbers", "vectors"),
        [
            ({}, 7, 0),
            ({"logprobs": 4}, 35, 0),
            ({"logprobs": 4, "measures": {"top_k_mass": 3}}, 42, 0),
            ({"seed": 1}, 11, 0),
            ({"seed": 1, "logit_bias": {"5": 1}}, 7, 4),
        ],
        ids=str,
    )
    async def test_what_is_told_of_the_weights_is_counted(self, door, more, numbers, vectors):
        someone = await holder(door, "wide")
        headers = {"authorization": f"Bearer {someone.key}"}
        assert (await door.client.post("/v1/score", json=ASKED | more, headers=headers)).status_code == 200
        (row,) = await rows(door)
        assert row["tokens"] == 7
        assert row["released_rank"] == 1_000_000 * vectors + math.ceil(1_000_000 * numbers / 384)
