"""Stealing the output matrix through the API, as Carlini and others did (arXiv 2403.06634).

A logit_bias decides which token is drawn, and its logprob is told: one number of the row of logits of a
prompt. All of them for more prompts than the hidden size give a matrix whose rank is the hidden size, and
whose span is that of the output matrix. A whole distribution is such a row at once. Measures of the whole
vocabulary give rows too, to whoever puts enough of them together.
"""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

from tests.http.door import open_door
from tests.http.grants import PROGRAMME, holder
from tests.http.test_metering import rows as ledger

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

    def logprobs(self, ids, changes=None):
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


async def take_whole(thief, field: str):
    """The same by asking for whole distributions, of generated tokens or of prompts."""
    rows = []
    for prompt in range(PROMPTS):
        asked = {"max_tokens": 1, field: [0]} if field == "distributions" else {"max_tokens": 0, field: [2]}
        reply = await thief.ask(prompt=[9, prompt, 5], **asked)
        if reply.status_code != 200:
            return np.array(rows), reply
        (told,) = reply.json()["choices"][0][field]
        rows.append(np.frombuffer(base64.b64decode(told["b64"]), "<f4"))
    return np.array(rows), None


def assert_stolen(rows, matrix):
    """Rank and span of `rows` are those of the output matrix [vocabulary, hidden size]."""
    rank, span = span_of(rows)
    assert rank == HIDDEN
    true = matrix - matrix[:1]
    assert np.allclose(true.T @ span.T @ span, true.T, atol=1e-2)


def assert_stopped(refusal):
    """The refusal says that there is no more of it, now or later, and what of."""
    error = refusal.json()["error"]
    assert (refusal.status_code, error["code"], error["layer"]) == (429, "insufficient_quota", "quota")
    assert "released_rank" in error["message"]
    assert "retry-after" not in refusal.headers


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
    assert_stolen(rows, door.head.matrix[:vocabulary])


async def test_by_default_it_is_not(door):
    rows, refusal = await steal(await holder(door, "wide"), 40)
    assert_stopped(refusal)
    assert len(rows) < HIDDEN


WHOLE = pytest.mark.parametrize("field", ["distributions", "prompt_distributions"])


@WHOLE
async def test_with_the_budget_off_whole_distributions_are_the_matrix(door, field):
    rows, refusal = await take_whole(await holder(door, "bare"), field)
    assert refusal is None
    assert_stolen(rows, door.head.matrix)


@WHOLE
async def test_by_default_whole_distributions_stop_below_the_hidden_size(door, field):
    rows, refusal = await take_whole(await holder(door, "vectors"), field)
    assert_stopped(refusal)
    assert len(rows) == HIDDEN - 1
    rank, _ = span_of(rows)
    assert rank == HIDDEN - 1


async def test_a_request_for_more_than_is_left_gets_nothing_and_is_charged_nothing(door):
    """It is refused whole, and not answered with as many as there is room for."""
    thief = await holder(door, "vectors")
    more = list(range(HIDDEN))
    refused = await thief.ask(max_tokens=HIDDEN, ignore_eos=True, distributions=more)
    assert_stopped(refused)
    reply = await thief.ask(max_tokens=HIDDEN, ignore_eos=True, distributions=more[:-1])
    assert len(reply.json()["choices"][0]["distributions"]) == HIDDEN - 1
    assert_stopped(await thief.ask(max_tokens=1, distributions=[0]))
    assert (await thief.ask(max_tokens=1, measures={"entropy": True, "rank": True})).status_code == 200
    assert [row["released_rank"] for row in await ledger(door)] == [(HIDDEN - 1) * 10**6, 0]


async def test_streams_of_whole_distributions_stop_below_the_hidden_size_too(door):
    thief, told = await holder(door, "vectors"), 0
    for _ in range(HIDDEN + 1):
        reply = await thief.ask(stream=True, max_tokens=1, distributions=[0])
        told += reply.text.count('"b64"')
    assert told == HIDDEN - 1


@pytest.mark.parametrize("measure", ["surprisal", "kl"])
async def test_measures_that_a_bias_decides_are_stopped_as_logprobs_are(door, measure):
    """The surprisal of a token under a bias is its logprob, and so is the divergence of a biased choice."""
    thief, told = await holder(door, "wide"), 0
    for token in range(HIDDEN + 1):
        bias = {str(token): 100.0}
        reply = await thief.ask(max_tokens=1, temperature=0, logit_bias=bias, measures={measure: True})
        told += reply.status_code == 200
    assert told == HIDDEN - 1


async def test_a_row_that_is_put_together_of_measures_costs_what_it_tells(door):
    """The mass of the k likeliest for every k, and each token's rank, are the row: mass is not free."""
    thief = await holder(door, "wide")
    vocabulary = door.backend.tokenizer.vocab_size
    for k in range(1, 41):
        reply = await thief.ask(prompt=[9, 9], max_tokens=1, measures={"top_k_mass": k})
        assert reply.status_code == 200
    assert sum(row["released_rank"] for row in await ledger(door)) >= 40 * 10**6 // vocabulary


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
