"""What can be said with a question. Each option has the meaning of the field of that name in the HTTP API.

They are passed on as they are: the server checks them, and refuses by name what it does not honour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

Prompt: TypeAlias = "str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]"
"""Text, token ids, or several of either."""

Conversation: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""Messages such as `{"role": "user", "content": "…"}`; a text alone is one message of the user."""


class PromptMeasures(TypedDict, total=False):
    """What to measure at tokens that were given."""

    entropy: bool
    rank: bool
    surprisal: bool
    top_k_mass: int
    """The k."""


class Measures(PromptMeasures, total=False):
    """What to measure at tokens that were drawn."""

    kl: bool


class SamplingOptions(TypedDict, total=False):
    """Options of both endpoints; None means the same as leaving the option out."""

    temperature: float | None
    """0 is greedy."""
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[str, float] | None
    """Token id, as a string, to bias."""
    n: int | None
    """Answers to each prompt."""
    seed: int | None
    """Left out, the server draws one and reports it."""
    max_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    return_token_ids: bool | None
    prompt_logprobs: int | None
    measures: Measures | None
    """What to measure over the whole vocabulary at each generated token."""
    prompt_measures: PromptMeasures | None
    """The same at each token of the prompt but the first."""
    distributions: Sequence[int] | None
    """Generated tokens, from 0, at which to report the logprobs of the whole vocabulary."""
    prompt_distributions: Sequence[int] | None
    """The same of the prompt's tokens, from 1."""
    joint_seed: Mapping[str, str] | None
    """A seed that neither side picks: one of `client.joint_seeds()`."""
    write: Sequence[Mapping[str, Any]] | None
    """Changes inside the model while it answers, as in a run of a plan; see docs/howto/look-inside.md."""
    service_tier: Literal["auto", "default", "flex"] | None
    """`flex` runs when nothing else waits."""
    user: str | None


class CompletionOptions(SamplingOptions, total=False):
    """Options of `complete`."""

    logprobs: int | None
    """How many of the likeliest tokens to report at each position."""
    echo: bool | None
    best_of: int | None
    add_special_tokens: bool | None


class ChatOptions(SamplingOptions, total=False):
    """Options of `chat`."""

    max_completion_tokens: int | None
    logprobs: bool | None
    top_logprobs: int | None
    """Needs `logprobs=True`."""
