"""Stealing the output matrix through the API, as Carlini and others did (arXiv 2403.06634).

A logit_bias decides which token is drawn, and its logprob is told: one number of the row of logits of a
prompt. All of them for more prompts than the hidden size give a matrix whose rank is the hidden size, and
whose span is that of the output matrix.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.http.door import open_door
from tests.http.grants import PROGRAMME, holder

pytestmark = pytest.mark.anyio

HIDDEN = 6
PROMPTS = HIDDEN + 3


class LinearHead:
    """Makes a fake backend's distributions those of a model: an output matrix times a hidden row."""

    def __init__(self, backend):
        chance = np.random.default_rng(7)
        self.matrix = chance.standard_normal((backend.tokenizer.vocab_size, HIDDEN))
        backend.hidden_size = HIDDEN
        backend._logprobs = self.logprobs

    def logprobs(self, ids):
        seed = hashlib.sha256(np.asarray(ids, "<u4").tobytes()).digest()[:8]
        hidden = np.random.default_rng(int.from_bytes(seed)).standard_normal(HIDDEN)
        logits = self.matrix @ hidden
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        door.head = LinearHead(door.backend)
        yield door


async def steal(thief, vocabulary: int):
    """As many whole rows of logprobs as the server lets go, [rows, vocabulary], and its last refusal."""
    rows = []
    for prompt in range(PROMPTS):
        row = []
        for token in range(vocabulary):
            bias = {str(token): 100.0}
            reply = await thief.ask(
                prompt=[9, 9, prompt], max_tokens=1, temperature=0, logit_bias=bias, logprobs=1
            )
            if reply.status_code != 200:
                return np.array(rows), reply
            row.append(reply.json()["choices"][0]["logprobs"]["token_logprobs"][0])
        rows.append(row)
    return np.array(rows), None


def span_of(rows):
    """Rank and span of the logits behind logprobs, each row of which has an unknown number added."""
    differences = rows - rows[:, :1]
    _, sizes, directions = np.linalg.svd(differences, full_matrices=False)
    rank = int((sizes > 1e-3 * sizes[0]).sum())
    return rank, directions[:rank]


async def test_with_the_budget_off_the_matrix_is_stolen(door):
    vocabulary = 40
    rows, refusal = await steal(await holder(door, "bare"), vocabulary)
    assert refusal is None
    rank, span = span_of(rows)
    assert rank == HIDDEN
    true = door.head.matrix[:vocabulary] - door.head.matrix[:1]
    inside = true.T @ span.T @ span
    assert np.allclose(inside, true.T, atol=1e-2)


async def test_by_default_it_is_not(door):
    rows, refusal = await steal(await holder(door, "wide"), 40)
    error = refusal.json()["error"]
    assert (refusal.status_code, error["code"], error["layer"]) == (429, "insufficient_quota", "quota")
    assert "released_rank" in error["message"]
    assert len(rows) < HIDDEN


async def test_nor_with_many_projects_of_one_person(door):
    thief = await holder(door, "wide")
    got = 0
    for _ in range(4):
        for token in range(HIDDEN):
            bias = {str(token): 100.0}
            got += (await thief.ask(max_tokens=1, logit_bias=bias, logprobs=0)).status_code == 200
        thief = await holder(door, "wide", thief.person)
    assert got == HIDDEN - 1


async def test_scoring_each_token_in_turn_costs_what_it_tells(door):
    """One number of a row for each text that is scored: a whole row costs one vector, whoever asks how."""
    thief = await holder(door, "wide")
    vocabulary = door.backend.tokenizer.vocab_size
    texts = [[9, token] for token in range(200)]
    told, refused = 0, None
    while refused is None:
        reply = await thief.ask(prompt=texts, max_tokens=0, echo=True, logprobs=0)
        if reply.status_code == 200:
            told += len(texts)
        else:
            refused = reply.json()["error"]
    assert "released_rank" in refused["message"]
    assert 0 < told < HIDDEN * vocabulary
