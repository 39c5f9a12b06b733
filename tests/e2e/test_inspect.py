"""Inspect runs unmodified, and its log says what the records say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.conftest import REAL_MODEL
from tests.e2e.clients import run_client

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.timeout(900)]


def evaluate(server, key, folder: Path, provider: str, *tasks: str) -> dict[str, dict]:
    """Run tasks with `inspect eval`; their logs by the name of the task."""
    logs = folder / "logs"
    run_client(
        "inspect",
        *("eval", *(f"inspect_tasks.py@{task}" for task in tasks)),
        *("--model", f"{provider}/transom/{REAL_MODEL}", "--model-base-url", f"{server.url}/v1"),
        *("--log-dir", str(logs), "--log-format", "json", "--display", "plain"),
        HOME=str(folder),
        TRANSOM_API_KEY=key,
    )
    found = [json.loads(file.read_text()) for file in logs.glob("*.json")]
    return {log["eval"]["task"]: log for log in found}


@pytest.fixture(scope="module")
def chats(server, key, tmp_path_factory) -> dict[str, dict]:
    return evaluate(server, key, tmp_path_factory.mktemp("chats"), "openai-api", "capitals", "animals")


@pytest.fixture(scope="module")
def texts(server, key, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("texts")
    return evaluate(server, key, folder, "openai-api-completions", "texts")["texts"]


def record_of(http, sample: dict) -> dict:
    """The record behind a sample: Inspect keeps its id as the id of the response."""
    reply = http.get(f"/v1/records/{sample['output']['response_id']}")
    assert reply.status_code == 200
    return reply.json()


def check_against_records(http, log: dict) -> None:
    """Every sample's answer is, to the letter, what its record says."""
    for sample in log["samples"]:
        record = record_of(http, sample)
        assert record["status"] == "complete"
        (sequence,) = record["openings"]["sequences"]
        assert sample["output"]["choices"][0]["message"]["content"] == sequence["text"]["text"]
        assert sample["output"]["usage"]["output_tokens"] == len(sequence["token_ids"]["token_ids"])


def test_a_task_with_free_answers_succeeds_and_each_answer_is_the_records(chats, http):
    log = chats["capitals"]
    assert log["status"] == "success"
    assert len(log["samples"]) == log["results"]["completed_samples"] == 4
    check_against_records(http, log)


def test_a_multiple_choice_task_succeeds_and_each_answer_is_the_records(chats, http):
    log = chats["animals"]
    assert log["status"] == "success"
    assert len(log["samples"]) == log["results"]["completed_samples"] == 3
    check_against_records(http, log)
    for sample in log["samples"]:
        request = json.loads(record_of(http, sample)["openings"]["request"]["json"])
        assert request["seed"] == 11
        assert request["messages"][0] == {"role": "system", "content": "Answer with one letter."}


def test_the_logprobs_of_a_chat_are_the_records(chats, http):
    for sample in chats["capitals"]["samples"]:
        (sequence,) = record_of(http, sample)["openings"]["sequences"]
        content = sample["output"]["choices"][0]["logprobs"]["content"]
        assert [token["logprob"] for token in content] == list(map(float, sequence["logprobs"]))
        for token in content:
            assert len(token["top_logprobs"]) == 3
            # Greedy: the answer's token is the likeliest, the same float in both places.
            assert token["logprob"] == token["top_logprobs"][0]["logprob"]


def test_the_completions_provider_gets_prompt_logprobs_as_vllm_gives_them(texts, http):
    assert texts["status"] == "success"
    assert len(texts["samples"]) == texts["results"]["completed_samples"] == 2
    check_against_records(http, texts)
    for sample in texts["samples"]:
        (sequence,) = record_of(http, sample)["openings"]["sequences"]
        first, *known = sequence["prompt_logprobs"]
        assert first == []
        content = sample["output"]["choices"][0]["prompt_logprobs"]["content"]
        # The actual token comes first, whatever its rank; Inspect scores that one.
        assert [token["logprob"] for token in content] == [float(ranked[0][1]) for ranked in known]
    (score, *_) = texts["results"]["scores"]
    assert all(math.isfinite(metric["value"]) for metric in score["metrics"].values())
