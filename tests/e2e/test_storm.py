"""Two hundred requests of every kind, alone, and then in a storm of 64 in which the engine is killed twice.

`TRANSOM_TEST_REAL=1` takes SmolLM2 instead of the tiny model, which takes much longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import REAL_MODEL
from tests.e2e.asking import metric
from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

REAL = os.environ.get("TRANSOM_TEST_REAL") == "1"
MODEL = REAL_MODEL if REAL else "tiny"
COUNT = 200
IN_FLIGHT = 64
WORDS = (
    *("the", "door", "stays", "shut", "and", "the", "light", "comes", "through", "a", "window"),
    *("above", "it", "in", "1876", "there", "were", "365", "days"),
)

VARIANTS = {
    "chunks of 512, prefix cache": {"max_num_batched_tokens": "512"},
    "chunks of 16, prefix cache": {"max_num_batched_tokens": "16"},
    "chunks of 512, no prefix cache": {"max_num_batched_tokens": "512", "prefix_caching": "false"},
    "chunks of 16, no prefix cache": {"max_num_batched_tokens": "16", "prefix_caching": "false"},
}

Answer = dict[int, dict[str, Any]]
"""What was said of each choice: tokens, logprobs, text, and why it ended."""


def text(chance: random.Random, words: int) -> str:
    # Every other text begins like others.
    beginning = [*WORDS[:12]] * 2 if chance.random() < 0.5 else []
    return " ".join([*beginning, *chance.choices(WORDS, k=words)])


def make(index: int) -> tuple[str, dict[str, Any]]:
    """Path and body of one request of the mixture."""
    chance = random.Random(index)
    sampling = {
        "seed": index,
        "temperature": chance.choice([0, 0.7, 1]),
        "top_p": chance.choice([1, 0.9]),
        "stream": chance.random() < 0.5,
    }
    length = chance.choice([3, 20, 60])
    tokens = chance.choice([4, 16, 48])
    kind = index % 4
    if kind == 0:
        messages = [{"role": "user", "content": text(chance, length)}]
        body = {"messages": messages, "max_tokens": tokens, "logprobs": True, "top_logprobs": 2}
        return "/v1/chat/completions", sampling | body
    if kind == 1:
        prompts = [f"{text(chance, length)} {ending}" for ending in "abc"]
        return "/v1/completions", {
            "prompt": prompts,
            "echo": True,
            "max_tokens": 0,
            "logprobs": 1,
            "seed": index,
        }
    body = {"prompt": text(chance, length), "max_tokens": tokens, "logprobs": 3, "n": 1 if kind == 2 else 3}
    return "/v1/completions", sampling | body


async def ask(http: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> Answer:
    answer: Answer = defaultdict(lambda: {"tokens": [], "logprobs": [], "text": "", "finish": None})
    async with http.stream("POST", path, json={"model": MODEL} | body) as reply:
        if not body.get("stream"):
            await reply.aread()
            assert reply.status_code == 200, reply.text
            take(answer, reply.json())
            return answer
        assert reply.status_code == 200
        last = ""
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                take(answer, json.loads(line.removeprefix("data: ")))
            last = line or last
        assert last == "data: [DONE]"
    return answer


def take(answer: Answer, piece: dict[str, Any]) -> None:
    assert "error" not in piece, piece
    for choice in piece["choices"]:
        told = answer[choice["index"]]
        message = choice.get("message") or choice.get("delta") or {}
        told["text"] += choice.get("text") or message.get("content") or ""
        told["finish"] = choice["finish_reason"] or told["finish"]
        logprobs = choice.get("logprobs") or {}
        for each in logprobs.get("content") or ():
            told["tokens"].append(each["token"])
            told["logprobs"].append((each["logprob"], [top["logprob"] for top in each["top_logprobs"]]))
        told["tokens"] += logprobs.get("tokens") or ()
        told["logprobs"] += zip(
            logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or (), strict=False
        )


async def ask_alone(url: str) -> list[Answer]:
    async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
        return [await ask(http, *make(index)) for index in range(COUNT)]


async def ask_in_a_storm(server: Server) -> list[Answer]:
    """All at once, in another order, 64 in flight; the engine is killed after a third and after two."""
    order = random.Random(COUNT).sample(range(COUNT), COUNT)
    room, answers = asyncio.Semaphore(IN_FLIGHT), {}
    fatal = {COUNT // 3, 2 * COUNT // 3}

    async def one(http: httpx2.AsyncClient, index: int) -> None:
        async with room:
            answers[index] = await ask(http, *make(index))
            if len(answers) in fatal:
                os.kill(server.engine, signal.SIGKILL)

    limits = httpx2.Limits(max_connections=IN_FLIGHT)
    async with httpx2.AsyncClient(base_url=server.url, timeout=900, limits=limits) as http:
        await asyncio.gather(*(one(http, index) for index in order))
    return [answers[index] for index in range(COUNT)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, models) -> list[Answer]:
    server = Server(tmp_path_factory.mktemp("alone"), models, allow_anonymous="true")
    server.start()
    yield asyncio.run(ask_alone(server.url))
    server.stop()


@pytest.fixture(scope="module")
def models(home, tiny_library) -> Path:
    return home / "models" if REAL else tiny_library


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_200_requests_are_answered_alike_alone_and_in_a_storm(alone, models, tmp_path, settings):
    server = Server(tmp_path, models, allow_anonymous="true", **settings)
    server.start()
    try:
        answers = asyncio.run(ask_in_a_storm(server))
        assert metric(server, "transom_engine_restarts_total", model=MODEL) == 2
    finally:
        server.stop()
    assert [index for index in range(COUNT) if answers[index] != alone[index]] == []
    assert all(choice["finish"] for answer in answers for choice in answer.values())
