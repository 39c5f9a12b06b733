"""Trials of `transom watch`: samples from the answers of two servers, and what the test says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.watching.pools import DRAWN, LOGPROBS, LONG, ROUND, SEEDED, SHORT, Pool
from transom.client.watching.baseline import Form, Plan
from transom.client.watching.looking import compare

BEFORE, AFTER, ALPHA = 12, 4, 0.001
"""Rounds of a baseline and of one look, and what that look may spend."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of watching."""

    name: str
    form: Form
    prompts: int
    """Asked in each round."""
    length: int
    """Tokens of an answer."""
    counted: str
    """Its name among a pool's tokens."""
    first: bool = False
    """Whether only the first token is drawn, at random from the logprobs that the pool has of it."""

    @property
    def requests(self) -> int:
        """Of one look."""
        return AFTER * self.prompts

    def plan(self) -> Plan:
        """What `transom watch` would keep of it."""
        return Plan(
            form=self.form,
            prompts=tuple(map(str, range(self.prompts))),
            max_tokens=self.length,
            before=BEFORE,
            after=AFTER,
            alpha=ALPHA,
            looks=1,
            tolerance=0.0,
        )


WAYS = (
    Way("logprobs, 1 prompt", LOGPROBS, 1, 1, "logprobs"),
    Way("logprobs", LOGPROBS, 3, 1, "logprobs"),
    Way("text, 8 tokens", SEEDED, 8, SHORT, f"text {SHORT}"),
    Way("text", SEEDED, 8, LONG, f"text {LONG}"),
    Way("text, 24 prompts", SEEDED, 24, LONG, f"text {LONG}"),
    Way("text, no seeds", DRAWN, 4, ROUND, "text, no seeds"),
    # As many tokens as the text with seeds takes.
    Way("first tokens, no seeds", DRAWN, 15, 1, "logprobs", first=True),
)


def alarms(way: Way, before: Pool, after: Pool, trials: int, generator: np.random.Generator) -> int:
    """In how many trials the test says that something changed.

    Args:
        way: how to watch.
        before: of the server that the baseline is taken of.
        after: of the one that is looked at.
        trials: each with prompts, or rounds, drawn anew.
        generator: draws them.
    """
    plan, count = way.plan(), 0
    for old, new in _samples(way, before, after, trials, generator):
        verdict, _ = compare(plan, old, new)
        count += verdict.p_value <= ALPHA
    return count


def _samples(
    way: Way, before: Pool, after: Pool, trials: int, generator: np.random.Generator
) -> Iterator[tuple[list[list[Any]], list[list[Any]]]]:
    for _ in range(trials):
        if way.first:
            chosen = generator.permutation(len(before.logprobs[0]))[: way.prompts].tolist()
            yield _first(before, BEFORE, chosen, generator), _first(after, AFTER, chosen, generator)
        elif way.form == DRAWN:
            # Rounds are independent: they are drawn without replacement, and never one for both sides.
            order = generator.permutation(len(before.drawn))
            other = order[BEFORE:] if after is before else generator.permutation(len(after.drawn))
            yield [before.drawn[i] for i in order[:BEFORE]], [after.drawn[i] for i in other[:AFTER]]
        else:
            chosen = generator.permutation(len(_answers(way, before)[0]))[: way.prompts].tolist()
            yield tuple(  # type: ignore[misc]
                _repeated(_answers(way, pool), count, chosen, generator)
                for pool, count in ((before, BEFORE), (after, AFTER))
            )


def _first(pool: Pool, count: int, chosen: Sequence[int], generator: np.random.Generator) -> list[list[Any]]:
    """Rounds of first tokens, each as a text of one character, so that two agree or do not."""
    drawn = []
    for prompt in chosen:
        logprobs = dict(sorted(pool.logprobs[0][prompt].items()))
        weights = np.exp(list(logprobs.values()))
        found = generator.choice(len(weights), count, p=weights / weights.sum())
        drawn.append([_character(list(logprobs)[each]) for each in found])
    return [list(answers) for answers in zip(*drawn, strict=True)]


def _character(token: str) -> str:
    return chr(_KNOWN.setdefault(token, 0x4E00 + len(_KNOWN)))


_KNOWN: dict[str, int] = {}


def _answers(way: Way, pool: Pool) -> Sequence[Sequence[Any]]:
    """By repeat and prompt."""
    return pool.logprobs if way.form.top else pool.seeded[way.length]


def _repeated(
    answers: Sequence[Sequence[Any]], count: int, chosen: Sequence[int], generator: np.random.Generator
) -> list[list[Any]]:
    """Rounds of some prompts, each answer one of the repeats."""
    return [[answers[int(generator.integers(len(answers)))][i] for i in chosen] for _ in range(count)]
