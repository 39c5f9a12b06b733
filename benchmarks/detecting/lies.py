"""Lies about an answer: what is asked of which server, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.detecting.asking import Asker
from benchmarks.detecting.claims import SYSTEM, Claim, Messages, Question
from benchmarks.load.prompts import Prompts
from benchmarks.watching.lies import LIES as ALTERED

Change = Callable[[Question], Question]


@dataclass(frozen=True, slots=True)
class Asked:
    """A lie that needs no other server: something else is asked than the record says."""

    name: str
    change: Change


def _seed(question: Question) -> Question:
    return replace(question, seed=question.seed + 1)


def _temperature(question: Question) -> Question:
    return replace(question, temperature=0.9)


def _system(question: Question) -> Question:
    said = {"role": "system", "content": "You are a careful assistant who answers briefly."}
    return replace(question, messages=(said, *question.messages[1:]))


def _truncated(question: Question) -> Question:
    user = question.messages[-1]
    kept = user["content"][: len(user["content"]) * 3 // 4]
    return replace(question, messages=(*question.messages[:-1], user | {"content": kept}))


ASKED = (
    Asked("another seed", _seed),
    Asked("temperature 0.9 for 1", _temperature),
    Asked("another system prompt", _system),
    Asked("a prompt cut short", _truncated),
)

SERVED = tuple(lie for lie in ALTERED if lie.alter is not None)
"""Lies that need another server: the model is not the one that is named."""


def questions(count: int, first: int) -> list[Question]:
    """Questions of several lengths, no two with the same seed."""
    prompts = Prompts(first, "text")
    return [
        Question(_messages(str(prompts.draw(20 + number % 60, number))), first + number)
        for number in range(count)
    ]


def _messages(user: str) -> Messages:
    return ({"role": "system", "content": SYSTEM}, {"role": "user", "content": user})


def untold(question: Question) -> Question:
    """The same without a system message of its own."""
    return replace(question, messages=question.messages[1:])


def claims(honest: Asker, serving: Asker, asked: Sequence[Question], change: Change | None) -> list[Claim]:
    """What a server answers, said to be the honest one's answer to these questions."""
    really = [question if change is None else change(question) for question in asked]
    given = serving.answers(really)
    return [
        Claim(question, honest.rendered(question.messages), answer)
        for question, answer in zip(asked, given, strict=True)
    ]
