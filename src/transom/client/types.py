"""What the server answers, typed. Everything is frozen; a newer server's extra fields are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes, BeforeValidator, Field, model_validator

from transom.schema.canonical import sha256
from transom.schema.record import Read

Logprob = Annotated[float, BeforeValidator(lambda value: -math.inf if value is None else value)]
"""A logprob where there is one: JSON has no infinity, so null is what an impossible token comes with."""


class Scored(NamedTuple):
    """One token with its logprob and the likeliest tokens at its place, whichever endpoint it came from."""

    token: str
    logprob: float | None
    """None for the first token of a prompt, which nothing predicts."""
    top: tuple[tuple[str, float], ...]


class Usage(Read):
    """Tokens that the serving tokenizer counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Stamp(Read):
    """What makes an answer repeatable."""

    record: str
    seed: int
    deployment: str
    writes: int = 0
    """How many changes were made inside the model while it answered."""


class PromptLogprob(Read):
    """One token at one place of a prompt."""

    logprob: Logprob
    rank: int
    decoded_token: str


PromptLogprobs = tuple[Mapping[int, PromptLogprob] | None, ...]
"""By position: token id to logprob, the actual token first; None for the first."""


class CompletionLogprobs(Read):
    """Parallel arrays, one entry a token."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[Mapping[str, Logprob] | None, ...] | None = None
    text_offset: tuple[int, ...] = ()

    @property
    def scored(self) -> tuple[Scored, ...]:
        """The tokens one by one."""
        tops = self.top_logprobs or (None,) * len(self.tokens)
        return tuple(
            Scored(token, logprob, tuple((top or {}).items()))
            for token, logprob, top in zip(self.tokens, self.token_logprobs, tops, strict=True)
        )


class TopLogprob(Read):
    """A token that could have come."""

    token: str
    logprob: Logprob
    bytes: tuple[int, ...] | None = None


class TokenLogprob(TopLogprob):
    """A token that came."""

    top_logprobs: tuple[TopLogprob, ...] = ()


class ChatLogprobs(Read):
    """One entry a token."""

    content: tuple[TokenLogprob, ...] = ()

    @property
    def scored(self) -> tuple[Scored, ...]:
        """The tokens one by one."""
        return tuple(
            Scored(each.token, each.logprob, tuple((top.token, top.logprob) for top in each.top_logprobs))
            for each in self.content
        )


class MeasuredToken(Read):
    """A token, and what was measured over the whole vocabulary at its place; None for what was not asked."""

    token: str
    token_id: int
    entropy: float | None = None
    """Of the model's own distribution, in nats."""
    rank: int | None = None
    """1 is the most likely."""
    surprisal: Annotated[
        float | None, BeforeValidator(lambda value: math.inf if value is None else value)
    ] = None
    """In nats: minus the logprob."""
    kl: float | None = None
    """Divergence of the distribution that the token was drawn from, from the model's own, in nats."""
    top_k_mass: float | None = None
    """Probability that the k likeliest tokens hold together."""


class Distribution(Read):
    """The logprobs of the whole vocabulary at one place."""

    position: int
    """Of the token that is predicted: among the generated ones, or in the prompt; from 0."""
    dtype: Literal["float32"]
    shape: tuple[int]
    b64: Base64Bytes = Field(repr=False)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(self.b64) != 4 * self.shape[0]:
            raise ValueError("a distribution is not as long as it says")
        return self

    @cached_property
    def logprobs(self) -> NDArray[np.float32]:
        """[vocabulary], by token id; read-only."""
        return np.frombuffer(self.b64, "<f4")

    @property
    def digest(self) -> str:
        """What the openings of the answer's record hold in its place."""
        return sha256(self.b64)


class _Choice(Read):
    index: int
    finish_reason: str | None = None
    """`stop`, `length`, …; None in a stream that goes on."""
    stop_reason: str | int | None = None
    """The stop string or stop token that ended it."""
    token_ids: tuple[int, ...] | None = None
    measures: tuple[MeasuredToken, ...] | None = None
    """One entry a generated token."""
    distributions: tuple[Distribution, ...] | None = None


class _OfPrompt(Read):
    prompt_measures: tuple[MeasuredToken | None, ...] | None = None
    """One entry a token of the prompt; None for the first, which nothing predicts."""
    prompt_distributions: tuple[Distribution, ...] | None = None


class CompletionChoice(_Choice, _OfPrompt):
    """One continuation, or a piece of one."""

    text: str
    logprobs: CompletionLogprobs | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Message(Read):
    """An assistant's turn, or a piece of one."""

    role: str | None = None
    content: str | None = None


class _ChatChoice(_Choice):
    logprobs: ChatLogprobs | None = None


class ChatChoice(_ChatChoice):
    """One answer."""

    message: Message

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.content or ""


class ChatDelta(_ChatChoice):
    """A piece of an answer."""

    delta: Message

    @property
    def text(self) -> str:
        """The text of this piece."""
        return self.delta.content or ""


class _Answer(Read):
    id: str
    created: int
    model: str
    transom: Stamp

    @property
    def record(self) -> str:
        """The record's id, for `replay` and for citing."""
        return self.transom.record

    @property
    def seed(self) -> int:
        """The seed that was used, given or drawn."""
        return self.transom.seed

    @property
    def deployment(self) -> str:
        """Digest of the deployment that answered."""
        return self.transom.deployment


class Completion(_Answer):
    """The reply of `complete`."""

    choices: tuple[CompletionChoice, ...]
    usage: Usage

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text


class CompletionChunk(_Answer):
    """One event of `stream_complete`."""

    choices: tuple[CompletionChoice, ...]
    usage: Usage | None = None
    """In the last chunk, which has no choices."""

    @property
    def text(self) -> str:
        """What this chunk adds to the first choice; to tell choices apart, look at `choices`."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


class Chat(_Answer, _OfPrompt):
    """The reply of `chat`."""

    choices: tuple[ChatChoice, ...]
    usage: Usage
    prompt_token_ids: tuple[int, ...] | None = None
    prompt_logprobs: PromptLogprobs | None = None

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text


class ChatChunk(_Answer, _OfPrompt):
    """One event of `stream_chat`."""

    choices: tuple[ChatDelta, ...]
    usage: Usage | None = None
    """In the last chunk, which has no choices."""

    @property
    def text(self) -> str:
        """What this chunk adds to the first choice; to tell choices apart, look at `choices`."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


class NamedToken(Read):
    """A token of the vocabulary."""

    token_id: int
    token: str


class LikelyToken(NamedToken):
    """A token, and how likely it was."""

    logprob: Logprob


class ScoredToken(LikelyToken):
    """A token of an answer that was scored."""

    rank: int
    """1 is the most likely."""
    top_logprobs: tuple[LikelyToken, ...] = ()
    measures: Mapping[str, float | None] | None = None
    drawn: NamedToken | None = None
    """What would have been drawn there after the tokens before it; None where no seed was given."""
    margin: float | None = None
    """How far the token was from being drawn, in logits: 0 where it would have been. None where no seed was
    given, and of a token that a filter had removed, which no rise would have brought back."""


class ScoredAnswer(Read):
    """An answer that was scored."""

    index: int
    logprob: Logprob
    """Of the whole answer: the sum of its tokens'."""
    tokens: tuple[ScoredToken, ...]
    differing: int | None = None
    """Tokens in whose place another would have been drawn; None where no seed was given."""
    would_be_drawn: bool | None = None
    """Whether the model would have given this answer with these parameters and this seed."""


class Scores(_Answer):
    """The reply of `score`."""

    items: tuple[ScoredAnswer, ...]
    usage: Usage


class Model(Read):
    """A model that is served."""

    id: str
    created: int
    owned_by: str
    digest: str = Field(description="Name of the deployment: SHA-256 of its canonical bytes")
    deployment: dict[str, Any] = Field(description="The manifest: everything that shapes an answer")
    max_model_len: int


class ModelList(Read):
    """The reply of `GET /v1/models`."""

    data: tuple[Model, ...]


class Tokens(Read):
    """The reply of `tokenize`."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None
    """What each token is spelled like, where that was asked for."""


class Text(Read):
    """The reply of `POST /detokenize`."""

    prompt: str
