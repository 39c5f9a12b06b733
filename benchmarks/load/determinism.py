"""Comparing two answers to the same seeded request."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.load.figures import Figures
from benchmarks.load.wire import Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens of an answer and their logprobs, with those of the most likely ones."""

    text: str
    tokens: tuple[str, ...]
    logprobs: tuple[tuple[tuple[str, float], ...], ...]
    """For each token its own spelling and logprob, then those of the most likely, in a fixed order."""


def read_answer(reply: Reply) -> Answer:
    """The answer of a completion with logprobs.

    Raises:
        ConnectionError: the reply is no answer.
    """
    if reply.problem is not None or reply.status != 200:
        said = reply.problem or reply.body[:300].decode(errors="replace")
        raise ConnectionError(f"a seeded request failed: {reply.status} {said}")
    choice: dict[str, Any] = reply.json()["choices"][0]
    given = choice.get("logprobs") or {}
    tokens = tuple(given.get("tokens") or ())
    chosen = given.get("token_logprobs") or ()
    top = given.get("top_logprobs") or [{}] * len(tokens)
    logprobs = tuple(
        ((token, logprob), *sorted((most or {}).items()))
        for token, logprob, most in zip(tokens, chosen, top, strict=True)
    )
    return Answer(choice["text"], tokens, logprobs)


def compare_answers(alone: Sequence[Reply], beside: Sequence[Reply]) -> Figures:
    """How many answers have identical tokens, how many also equal logprobs, and the largest difference."""
    pairs = [(read_answer(one), read_answer(other)) for one, other in zip(alone, beside, strict=True)]
    same = [one.tokens == other.tokens and one.text == other.text for one, other in pairs]
    exact = [one == other for one, other in pairs]
    differences = [each for one, other in pairs for each in _differences(one, other)]
    return {
        "requests": len(pairs),
        "same_tokens": sum(same),
        "same_logprobs": sum(exact),
        "largest_difference": max(differences, default=0.0),
        "tokens_compared": sum(len(one.tokens) for one, _ in pairs),
    }


def _differences(one: Answer, other: Answer) -> Iterator[float]:
    """Differences of logprobs up to where the answers part, of tokens that both list."""
    for index, (first, second) in enumerate(zip(one.logprobs, other.logprobs, strict=False)):
        if one.tokens[:index] != other.tokens[:index]:
            return
        # The chosen token may differ at the last place; a token's own logprob may still be compared.
        known = dict(second)
        for token, logprob in first:
            if token in known and math.isfinite(logprob) and math.isfinite(known[token]):
                yield abs(logprob - known[token])
