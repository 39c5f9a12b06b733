"""The engine is the plain model, for every family: same greedy tokens and logprobs, alone and in a crowd."""

from __future__ import annotations

import random

import pytest

from tests.engine.drive import PlainModel, ask, load_tiny, run
from tests.tiny import FAMILIES

TOLERANCE = 1e-4


def prompts(vocab: int, count: int = 20) -> list[list[int]]:
    chance = random.Random(7)
    return [[chance.randrange(vocab) for _ in range(chance.randint(1, 40))] for _ in range(count)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny_root):
    root = tiny_root(request.param)
    plain = PlainModel(root)
    return plain, load_tiny(root, max_num_batched_tokens=37).engine, plain._model.config.vocab_size


def test_greedy_tokens_and_echoed_logprobs_equal_the_plain_model(family):
    plain, engine, vocab = family
    asked = prompts(vocab)
    results = run(
        engine,
        [ask(str(i), p, temperature=0.0, logprobs=3, prompt_logprobs=2) for i, p in enumerate(asked)],
    )
    for index, prompt in enumerate(asked):
        result = results[str(index)]
        assert result.ids == plain.greedy(prompt, 8)
        expected = plain.logprobs(prompt + result.ids)
        assert result.prompt is not None
        assert result.prompt[0] is None
        for position, token in enumerate([*result.prompt[1:], *result.tokens]):
            assert token is not None
            row = expected[position]
            assert token.logprob == pytest.approx(float(row[token.token_id]), abs=TOLERANCE)
            for top_id, logprob in token.top:
                assert logprob == pytest.approx(float(row[top_id]), abs=TOLERANCE)
            assert token.top[0][1] == pytest.approx(float(row.max()), abs=TOLERANCE)


def test_a_sampled_answer_is_the_same_alone_and_in_a_crowd(family):
    _, engine, vocab = family
    asked = prompts(vocab, 12)
    crowd = [
        ask(str(i), p, seed=i, temperature=1.0, logprobs=5, prompt_logprobs=1) for i, p in enumerate(asked)
    ]
    together = run(engine, crowd)
    for request in crowd:
        assert run(engine, [request])[request.sequence_id] == together[request.sequence_id]
