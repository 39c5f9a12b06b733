"""What the real server answers over HTTP is what the plain model computes, and never depends on company."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
import torch

from tests.conftest import REAL_MODEL
from tests.engine.drive import PlainModel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 5, 8, 13,",
    "Zwölf Boxkämpfer jagen Viktor quer über den",
    "日本の首都は",
    "Dear Sir or Madam,\n\nI am writing to",
    "SELECT name FROM people WHERE",
    "Water boils at a temperature of",
    '{"name": "Ada", "born":',
    "The mitochondria is the",
    "Roses are red,\nviolets are",
    "<|im_start|>user\nWho was Ada Lovelace?<|im_end|>\n<|im_start|>assistant\n",
    "🎉🎊 Happy birthday",
    "To be, or not to be, that is",
    "E = mc",
    "In the beginning God created",
    "A",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "Ingredients: 2 eggs, 200 g of flour,",
]
GREEDY_TOKENS = 10


def complete(http, **body: Any) -> dict[str, Any]:
    """The only choice of an answer."""
    reply = http.post("/v1/completions", json={"model": REAL_MODEL} | body)
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    return choice


@pytest.fixture(scope="module")
def plain(home) -> PlainModel:
    return PlainModel(home / "models" / REAL_MODEL)


def test_greedy_tokens_and_echo_logprobs_of_20_prompts_are_the_plain_models(http, plain):
    def ask(prompt: str) -> dict[str, Any]:
        return complete(
            http,
            prompt=prompt,
            max_tokens=GREEDY_TOKENS,
            temperature=0,
            echo=True,
            logprobs=1,
            return_token_ids=True,
        )

    assert len(PROMPTS) == 20
    with ThreadPoolExecutor(5) as pool:
        choices = list(pool.map(ask, PROMPTS))
    for prompt, choice in zip(PROMPTS, choices, strict=True):
        context, generated = choice["prompt_token_ids"], choice["token_ids"]
        ids = [*context, *generated]
        expected = plain.logprobs(ids)[:-1]
        # One pass suffices: where each token is the likeliest after those before it, greedy decoding
        # writes just these.
        assert generated == expected.argmax(-1)[len(context) - 1 :].tolist(), prompt
        assert len(generated) == GREEDY_TOKENS or choice["finish_reason"] == "stop"
        first, *given = choice["logprobs"]["token_logprobs"]
        assert first is None
        wanted = expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert given == pytest.approx(wanted.tolist(), abs=1e-4, rel=0), prompt
        likeliest = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][1:]]
        assert likeliest == pytest.approx(expected.amax(-1).tolist(), abs=1e-4, rel=0), prompt


def test_measures_and_distributions_are_the_plain_models_and_are_replayed_exactly(http, plain):
    body = {
        "model": REAL_MODEL,
        "prompt": PROMPTS[5],
        "max_tokens": 4,
        "seed": 5,
        "top_p": 0.9,
        "ignore_eos": True,
        "measures": {"entropy": True, "kl": True, "top_k_mass": 7},
        "prompt_measures": {"entropy": True, "rank": True},
        "distributions": [0, 3],
        "prompt_distributions": [2],
        "return_token_ids": True,
    }
    reply = http.post("/v1/completions", json=body).json()
    (choice,) = reply["choices"]
    context = choice["prompt_token_ids"]
    rows = plain.logprobs(context + choice["token_ids"]).double()
    entropies = [-float((row.exp() * row).sum()) for row in rows]
    told = [*choice["prompt_measures"][1:], *choice["measures"]]
    assert [each["entropy"] for each in told] == pytest.approx(entropies[:-1], abs=1e-3)
    # A nucleus at temperature 1 is what is left of the distribution: the divergence is that of its mass.
    assert all(0 <= each["kl"] <= -math.log(0.9) + 1e-4 for each in choice["measures"])
    assert [each["top_k_mass"] for each in choice["measures"]] == pytest.approx(
        rows[len(context) - 1 : -1].exp().topk(7).values.sum(-1).tolist(), abs=1e-4
    )
    vectors = [base64.b64decode(each["b64"]) for each in choice["distributions"]]
    for vector, place in zip(vectors, (0, 3), strict=True):
        found = torch.frombuffer(bytearray(vector), dtype=torch.float32)
        assert float((found - rows[len(context) - 1 + place]).abs().max()) < 1e-3
    record = http.get(f"/v1/records/{reply['id']}").json()
    digests = ["sha256:" + sha256(vector).hexdigest() for vector in vectors]
    assert record["openings"]["sequences"][0]["distributions"] == [[0, digests[0]], [3, digests[1]]]
    assert http.post(f"/v1/records/{reply['id']}/replay").json()["level"] == "EXACT"


@dataclass(frozen=True)
class Timed:
    """An answer, and when it was under way."""

    choice: dict[str, Any]
    begun: float
    ended: float


def ask_all(http, bodies: Iterable[dict[str, Any]]) -> list[Timed]:
    """All at once."""

    def ask(body: dict[str, Any]) -> Timed:
        begun = time.monotonic()
        choice = complete(http, **body)
        return Timed(choice, begun, time.monotonic())

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(ask, bodies))


def test_20_seeded_requests_get_the_same_bits_alone_and_beside_31_others(http):
    watched = [
        {
            "prompt": prompt,
            "max_tokens": 8,
            "temperature": 1,
            "seed": 1000 + index,
            "logprobs": 5,
            "return_token_ids": True,
            "measures": {"entropy": True, "rank": True, "surprisal": True, "kl": True, "top_k_mass": 10},
            "prompt_measures": {"entropy": True, "top_k_mass": 100},
            "distributions": [1],
        }
        for index, prompt in enumerate(PROMPTS)
    ]
    # Long and short prompts, greedy and hot, that go on for longer than those that are watched.
    others = [
        {
            "prompt": "The weather on the coast changes quickly. " * (1 + 4 * (index % 5)),
            "max_tokens": 12 + index % 5,
            "temperature": index % 3,
            "seed": index,
            "ignore_eos": True,
            "logprobs": index % 2,
            "prompt_logprobs": [None, 2][index % 2],
        }
        for index in range(31)
    ]
    alone = [complete(http, **body) for body in watched]
    crowd = ask_all(http, [*others, *watched])
    beside = crowd[len(others) :]
    for one in beside:
        company = sum(other.begun < one.ended and one.begun < other.ended for other in crowd) - 1
        assert company >= 31
    same = [one == other.choice for one, other in zip(alone, beside, strict=True)]
    assert same == [True] * 20
