"""Takes a baseline of a server's answers, and looks later whether they still come from the same source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from transom.client.watching.asking import Asker
from transom.client.watching.baseline import Baseline, Form, Look, Plan
from transom.client.watching.permutation import Verdict, permutation_test
from transom.client.watching.shifts import Logprobs, LogprobShift, Moved, TextDiscrepancy, observed

MOST_MOVED = 3
"""Tokens of a prompt that are named as evidence."""

LOGPROB_PROMPTS = ("x", "1", "?")
"""Short, so that a round costs little."""

TEXT_PROMPTS = (
    "Name a random animal.",
    "Write one sentence about anything.",
    "Pick a number from 1 to 100.",
    "Tell me a story.",
    "List five words.",
    "Invent a name.",
    "Write a line of a poem.",
    "Say something surprising.",
)
"""Open, so that the answer depends on much of the distribution."""


@dataclass(frozen=True, slots=True)
class PromptEvidence:
    """What one prompt alone shows."""

    prompt: str
    statistic: float
    """Nats per token, or squared discrepancy of texts."""
    moved: tuple[Moved, ...] = ()
    """The tokens that moved furthest."""
    before: str | None = None
    """Of texts, the commonest answer before."""
    after: str | None = None
    """And after."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    at: str
    number: int
    """Which look at this baseline it is, from 1."""
    plan: Plan
    verdict: Verdict
    prompts: tuple[PromptEvidence, ...]
    requests: int
    tokens: int
    announced: tuple[tuple[str, ...], tuple[str, ...]] | None
    """What the server says of itself, before and now, where that differs; None where it does not."""

    @property
    def changed(self) -> bool:
        """Whether the p-value is at most what this look may spend."""
        return self.verdict.p_value <= self.plan.alpha_of_a_look

    @property
    def look(self) -> Look:
        """What the baseline keeps of it."""
        return Look(at=self.at, p_value=self.verdict.p_value, changed=self.changed)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "at": self.at,
            "changed": self.changed,
            "method": self.plan.form.method,
            "p_value": self.verdict.p_value,
            "statistic": self.verdict.statistic,
            "divisions": self.verdict.divisions,
            "exact": self.verdict.exact,
            "look": self.number,
            "looks": self.plan.looks,
            "alpha": self.plan.alpha,
            "alpha_of_this_look": self.plan.alpha_of_a_look,
            "requests": self.requests,
            "tokens": self.tokens,
            "announced": None if self.announced is None else [list(said) for said in self.announced],
            "prompts": [_evidence_json(each) for each in self.prompts],
        }


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def default_prompts(form: Form) -> tuple[str, ...]:
    """What is asked where nobody says what to ask."""
    return LOGPROB_PROMPTS if form.top else TEXT_PROMPTS


def take_baseline(asker: Asker, plan: Plan, spread: float = 0.0) -> Baseline:
    """Ask the rounds of a baseline.

    Args:
        asker: asks the server, and has asked nothing that should not be counted.
        plan: what to ask; see `Plan.check`.
        spread: seconds over which the rounds are spread.
    """
    rounds = _ask(asker, plan, plan.before, spread)
    made = Baseline(
        url=asker.url,
        model=asker.model,
        made=now(),
        plan=plan,
        fingerprints=tuple(sorted(asker.fingerprints)),
        requests=asker.requests,
        tokens=asker.tokens,
    )
    return made.model_copy(update={"logprobs" if plan.form.top else "texts": rounds})


def take_look(asker: Asker, baseline: Baseline, spread: float = 0.0) -> Finding:
    """Ask the rounds of one look, and compare.

    Raises:
        InvalidRequest: the baseline is of something else, or its looks are spent.
    """
    baseline.check_of(asker.url, asker.model)
    rounds = _ask(asker, baseline.plan, baseline.plan.after, spread)
    verdict, prompts = compare(baseline.plan, baseline.rounds, rounds)
    said = tuple(sorted(asker.fingerprints))
    return Finding(
        at=now(),
        number=len(baseline.looks) + 1,
        plan=baseline.plan,
        verdict=verdict,
        prompts=prompts,
        requests=asker.requests,
        tokens=asker.tokens,
        announced=None if said == baseline.fingerprints else (baseline.fingerprints, said),
    )


def compare(
    plan: Plan, before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]
) -> tuple[Verdict, tuple[PromptEvidence, ...]]:
    """Test whether two samples come from the same source.

    Args:
        plan: what was asked.
        before: answers by round and prompt, logprobs or texts.
        after: the same, of later.
    """
    rounds = [*before, *after]
    shift: LogprobShift | TextDiscrepancy
    shift = LogprobShift.of(rounds, plan.tolerance) if plan.form.top else TextDiscrepancy.of(rounds)
    # Divisions are drawn in the same way each time, so that whoever has the samples gets the same number.
    generator = np.random.default_rng(0)
    verdict = permutation_test(shift, len(before), len(after), generator=generator)
    return verdict, tuple(_evidence(plan.prompts, shift, before, after))


def _ask(asker: Asker, plan: Plan, count: int, spread: float) -> tuple[tuple[Any, ...], ...]:
    def logprobs(_number: int, prompt: str) -> Logprobs:
        return asker.logprobs(plan.form, prompt)

    def text(number: int, prompt: str) -> str:
        return asker.text(plan.form, prompt, plan.max_tokens, seed=number)

    ask = logprobs if plan.form.top else text
    rounds: list[list[Any]] = asker.ask_rounds(count, plan.prompts, ask, spread)
    return tuple(tuple(answers) for answers in rounds)


def _evidence(
    prompts: Sequence[str],
    shift: LogprobShift | TextDiscrepancy,
    before: Sequence[Sequence[Any]],
    after: Sequence[Sequence[Any]],
) -> Iterator[PromptEvidence]:
    statistics = shift.by_prompt(observed(len(before), len(after)))
    for number, (prompt, values) in enumerate(zip(prompts, statistics, strict=True)):
        if isinstance(shift, LogprobShift):
            moved = tuple(shift.moved(number, len(before), MOST_MOVED))
            yield PromptEvidence(prompt, float(values[0]), moved)
        else:
            old, new = (_commonest([answers[number] for answers in rounds]) for rounds in (before, after))
            yield PromptEvidence(prompt, float(values[0]), before=old, after=new)


def _commonest(texts: Sequence[str]) -> str:
    return max(texts, key=texts.count)


def _evidence_json(evidence: PromptEvidence) -> dict[str, Any]:
    shown: dict[str, Any] = {"prompt": evidence.prompt, "statistic": evidence.statistic}
    if evidence.before is not None:
        return shown | {"before": evidence.before, "after": evidence.after}
    return shown | {"moved": [each._asdict() for each in evidence.moved]}
