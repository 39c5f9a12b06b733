"""Measuring how far one server's answers lie from another's, of the same model on another engine profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from transom.client.synchronous import Client
from transom.client.types import Completion, ScoredAnswer
from transom.errors import InvalidRequest
from transom.schema.calibrations import LEAST_TOKENS, Calibration, measured
from transom.schema.record import rfc3339

LENGTH = 128
"""Tokens of an answer."""

PROMPTS = (
    "The harbour master looked at the tide table and",
    "def median(values: list[float]) -> float:\n",
    "Three reasons why bridges need expansion joints:\n1.",
    "Dear Sir or Madam,\n\nI am writing to",
    "The capital of Portugal is",
    "In 1905 a clerk in Bern",
    "Zutaten: 200 g Mehl, 2 Eier,",
    "Question: A train leaves at 9:40 and arrives at 11:05. How long is the journey?\nAnswer:",
    "It was the quietest winter that anybody in the valley could",
    "SELECT name, count(*) FROM",
    "La mer \u00e9tait calme ce matin-l\u00e0, et",
    "To whom it may concern: the elevator",
    "Photosynthesis is the process by which",
    "<html>\n<head>\n<title>",
    "Once, when the lamps were still lit by hand,",
    "The proof is by induction on n. For n = 0",
)
"""What is asked; each many times, under another seed each time."""


class _Drawing(TypedDict, total=False):
    """How tokens are drawn."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float


_DRAWS: tuple[_Drawing, ...] = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 50},
    {"temperature": 0.9, "min_p": 0.05, "frequency_penalty": 0.3},
)
"""How tokens are drawn, in turn. The first round is greedy: another one would give the same answers again."""


_GREEDY: _Drawing = {"temperature": 0.0}


def calibrate(
    one: Client,
    other: Client,
    model: str,
    tokens: int = LEAST_TOKENS,
    progress: Callable[[int], object] = lambda _tokens: None,
) -> Calibration:
    """Have one server answer and the other judge, until there are enough tokens.

    Args:
        one: that answers.
        other: that judges; it needs the scope `model:score`.
        model: by the name that both serve it under.
        tokens: at least so many.
        progress: told how many there are.

    Raises:
        InvalidRequest: both serve the same deployment, or different models.
        ValueError: `tokens` is less than a calibration needs.
    """
    if tokens < LEAST_TOKENS:
        raise ValueError(f"a calibration has at least {LEAST_TOKENS} tokens, not {tokens}")
    answered, judged = _deployments(one, other, model)
    answers: list[list[tuple[float, float]]] = []
    differing = total = 0
    seed = 0
    while total < tokens:
        draw = _DRAWS[seed % len(_DRAWS)] if seed else _GREEDY
        for scored, logprobs in _asked(one, other, model, seed, draw):
            answers.append(_compared(scored, logprobs))
            differing += scored.differing or 0
            total += len(scored.tokens)
        seed += 1
        progress(total)
    return measured(answered, judged, answers, differing, rfc3339(datetime.now(UTC)))


def _deployments(one: Client, other: Client, model: str) -> tuple[str, str]:
    found = []
    for client in (one, other):
        known = {each.id: each for each in client.models()}
        if model not in known:
            raise InvalidRequest(f"The model {model!r} is served by one of both at most.", param="model")
        found.append(known[model])
    first, second = found
    if first.deployment["model"] != second.deployment["model"]:
        raise InvalidRequest(
            "Both servers have a model of that name, and not the same: their manifests differ.", param="model"
        )
    if first.digest == second.digest:
        raise InvalidRequest(
            "Both servers have the same deployment: its answers are the same to the bit, and replay EXACT."
        )
    return first.digest, second.digest


def _asked(
    one: Client, other: Client, model: str, seed: int, draw: _Drawing
) -> Iterator[tuple[ScoredAnswer, Sequence[float]]]:
    """Each answer as the other server sees it, with its logprobs as the one that answered saw them."""
    given = one.complete(
        PROMPTS,
        model=model,
        seed=seed,
        max_tokens=LENGTH,
        ignore_eos=True,
        logprobs=0,
        return_token_ids=True,
        **draw,
    )
    items = [
        {"prompt": list(choice.prompt_token_ids or ()), "completion": list(choice.token_ids or ())}
        for choice in given.choices
    ]
    scores = other.score(items, model=model, seed=seed, **draw)
    return zip(scores.items, _logprobs(given), strict=True)


def _logprobs(given: Completion) -> list[list[float]]:
    found = []
    for choice in given.choices:
        known = () if choice.logprobs is None else choice.logprobs.token_logprobs
        found.append([logprob for logprob in known if logprob is not None])
    return found


def _compared(scored: ScoredAnswer, logprobs: Sequence[float]) -> list[tuple[float, float]]:
    return [
        (math.inf if token.margin is None else token.margin, abs(token.logprob - logprob))
        for token, logprob in zip(scored.tokens, logprobs, strict=True)
    ]
