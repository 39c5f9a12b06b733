"""A real engine in a real server: everything that it answers is replayed in one pass, to the bit."""

from __future__ import annotations

import httpx2
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ADD = {"at": "resid_post.1", "op": "add", "value": 0.5, "pos": {"phase": "generated"}}
ASKED = {
    "plain": {"max_tokens": 40, "ignore_eos": True},
    "greedy": {"max_tokens": 30, "temperature": 0, "logprobs": 5},
    "filters": {"max_tokens": 30, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "n": 3},
    "penalties": {
        "max_tokens": 30,
        "frequency_penalty": 1.2,
        "presence_penalty": 0.5,
        "logit_bias": {"70": 3},
    },
    "stop string": {"max_tokens": 200, "stop": ["e", "th"], "ignore_eos": True},
    "end of sequence": {"max_tokens": 100, "logit_bias": {"2": 6}},
    "stop token": {"max_tokens": 100, "stop_token_ids": list(range(3, 380, 9))},
    "many prompts": {"prompt": ["a", "The light", "The door"], "max_tokens": 9, "best_of": 2},
    "only scored": {"max_tokens": 0, "echo": True, "logprobs": 2},
    "measures": {"max_tokens": 9, "measures": {"kl": True, "entropy": True}, "distributions": [0, 5]},
    "of the prompt": {"max_tokens": 9, "prompt_logprobs": 3, "prompt_distributions": [2]},
    "writes": {"max_tokens": 20, "ignore_eos": True, "transom": {"write": [ADD]}},
}


@pytest.fixture
def http(tiny_server):
    server = tiny_server()
    key = server.command("admin", "key", "create", "--name", "tests")
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=300) as client:
        yield client


def complete(http, **body) -> dict:
    reply = http.post("/v1/completions", json={"model": "tiny", "prompt": "A transom is", "seed": 3} | body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_whatever_was_generated_is_exact_and_another_answer_is_not(http):
    ids = [complete(http, **body)["id"] for body in ASKED.values()]
    reply = http.post("/v1/records/replay", json={"ids": ids})
    assert reply.status_code == 200, reply.text
    reports = reply.json()["data"]
    found = {name: report["reason"] for name, report in zip(ASKED, reports, strict=True)}
    assert found == dict.fromkeys(ASKED)
    assert {report["level"] for report in reports} == {"EXACT"}
    judged = [report["margins"] for report in reports if report["tokens"]]
    assert judged == [{"mean": 0.0, "largest": 0.0, "infinite": 0}] * (len(ASKED) - 1)
    for record_id, report in zip(ids, reports, strict=True):
        alone = http.post(f"/v1/records/{record_id}/replay").json()
        assert alone | {"elapsed_s": 0} == report | {"elapsed_s": 0}


def test_an_answer_is_scored_with_the_bits_that_it_was_drawn_with(http):
    made = complete(http, max_tokens=30, ignore_eos=True, logprobs=2, return_token_ids=True)
    (choice,) = made["choices"]
    asked = {"model": "tiny", "prompt": "A transom is", "completion": choice["token_ids"], "logprobs": 2}
    for seed, drawn in ((3, True), (4, False)):
        said = http.post("/v1/score", json=asked | {"seed": seed}).json()
        (item,) = said["items"]
        assert item["would_be_drawn"] is drawn
        assert [token["logprob"] for token in item["tokens"]] == choice["logprobs"]["token_logprobs"]
        assert http.post(f"/v1/records/{said['id']}/replay").json()["level"] == "EXACT"
    plain = http.post("/v1/score", json=asked).json()["items"][0]
    assert [token["logprob"] for token in plain["tokens"]] == choice["logprobs"]["token_logprobs"]
