"""The baseline: what was asked, what was answered, how often it was looked at since, in one file.

Canonical JSON (RFC 8785, no floats: numbers that matter are decimal strings), so that equal baselines have
equal bytes and a digest of one can be published.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from transom.client.watching.permutation import attainable
from transom.client.watching.shifts import Logprobs
from transom.errors import InvalidRequest, NotFound
from transom.schema.canonical import canonical_bytes

Method: TypeAlias = Literal["logprobs", "text"]

Number = Annotated[float, Field(allow_inf_nan=False), PlainSerializer(repr, return_type=str)]
"""A float that is written as the shortest decimal that reads back as the same."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Form:
    """How one server wants to be asked."""

    endpoint: Literal["chat", "completions"]
    top: int = 0
    """Likeliest tokens to ask for; 0 for texts alone."""
    seeded: bool = False
    """Whether it takes a seed: one that also honours it gives the same text each time."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    @property
    def method(self) -> Method:
        """What such requests are good for."""
        return "logprobs" if self.top else "text"


class Plan(_Kept):
    """What is fixed when the baseline is taken, because changing it later would spoil the test."""

    form: Form
    prompts: tuple[str, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    """Of each answer."""
    before: int = Field(ge=1)
    """Rounds of the baseline; a round asks each prompt once."""
    after: int = Field(ge=1)
    """Rounds of each look."""
    alpha: Number = Field(gt=0, lt=1)
    """The largest chance of any false alarm over all looks."""
    looks: int = Field(ge=1)
    """How many looks share it."""
    tolerance: Number = Field(ge=0)
    """Nats that a mean logprob may move without counting."""

    @property
    def alpha_of_a_look(self) -> float:
        """What one look may spend; by Bonferroni's inequality the looks may depend on each other."""
        return self.alpha / self.looks

    def check(self) -> None:
        """See that a change could be noticed at all.

        Raises:
            InvalidRequest: no p-value could be small enough.
        """
        least = attainable(self.before, self.after)
        if least > self.alpha_of_a_look:
            raise InvalidRequest(
                f"{self.before} rounds before and {self.after} after can give no p-value below {least:.2g}, "
                f"and each of {self.looks} looks may spend {self.alpha_of_a_look:.2g}: "
                "take more rounds, fewer looks, or a larger alpha.",
                param="rounds",
            )


class Look(_Kept):
    """One look since the baseline was taken."""

    at: str
    p_value: Number
    changed: bool


class Baseline(_Kept):
    """A sample of a server's answers, and everything needed to compare another one with it."""

    format: Literal["urn:transom:watch-baseline:v1"] = "urn:transom:watch-baseline:v1"
    url: str
    model: str
    made: str
    """RFC 3339, UTC."""
    plan: Plan
    fingerprints: tuple[str, ...]
    """What the server said of itself."""
    requests: int
    tokens: int
    logprobs: tuple[tuple[dict[str, Number], ...], ...] = ()
    """By round and prompt, the likeliest first tokens; empty where texts are compared."""
    texts: tuple[tuple[str, ...], ...] = ()
    """By round and prompt, the answers; empty where logprobs are compared."""
    looks: tuple[Look, ...] = ()

    @property
    def rounds(self) -> tuple[tuple[Logprobs, ...], ...] | tuple[tuple[str, ...], ...]:
        """The sample, whichever it is."""
        return self.logprobs or self.texts

    def check_of(self, url: str, model: str) -> None:
        """See that it is of this server's model, and has looks left.

        Raises:
            InvalidRequest: it is not, or has none.
        """
        for name, own, asked in (("address", self.url, url), ("model", self.model, model)):
            if own != asked:
                raise InvalidRequest(
                    f"The baseline is of the {name} {own!r}, not {asked!r}; keep one file for each.",
                    param="baseline",
                )
        if len(self.looks) >= self.plan.looks:
            raise InvalidRequest(
                f"All {self.plan.looks} looks of this baseline are spent; more would raise false alarms more "
                "often than it says. Move the file away, and take a new baseline.",
                param="baseline",
            )

    def after(self, look: Look) -> Baseline:
        """The baseline with one look more."""
        return self.model_copy(update={"looks": (*self.looks, look)})


def read(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it holds something else, or is damaged.
    """
    try:
        found = Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"There is no {path}.", param="baseline") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", param="baseline") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
        raise InvalidRequest(
            f"{path} is no baseline of transom watch, or is damaged ({where}: {error.errors()[0]['msg']}). "
            "Move it away to take a new one.",
            param="baseline",
        ) from error
    _check_shape(found, path)
    return found


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all.

    Raises:
        InvalidRequest: the file cannot be written there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("xb") as file:
            file.write(canonical_bytes(baseline.model_dump(mode="json")) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}.", param="baseline") from error


def _check_shape(found: Baseline, path: Path) -> None:
    plan = found.plan
    sizes = {len(answers) for answers in found.rounds}
    one_kind = bool(found.logprobs) != bool(found.texts) and bool(found.logprobs) == bool(plan.form.top)
    complete = len(found.rounds) == plan.before and sizes == {len(plan.prompts)}
    if not (one_kind and complete and all(all(answers) for answers in found.logprobs)):
        raise InvalidRequest(f"{path} is damaged: its sample is not the one that it plans.", param="baseline")
