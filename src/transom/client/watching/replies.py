"""What OpenAI-compatible APIs answer, as far as it is looked at, and what they say when they refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError

from transom.client.failures import RateLimited, UnexpectedReply, of_response
from transom.errors import (
    EngineUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    TransomError,
    Unauthenticated,
)
from transom.schema.record import Read

R = TypeVar("R", bound=BaseModel)

LEAST_LOGPROB = -1000.0
"""No token is impossible; some servers say so with null or with a number far below all others."""


class Likely(Read):
    """A token that could have come."""

    token: str
    logprob: float | None
    bytes: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Its text, or its bytes where these are no text of their own and others would look the same."""
        return f"bytes {bytes(self.bytes).hex()}" if self.bytes and "\ufffd" in self.token else self.token


class Place(Read):
    """One place of a chat's answer."""

    top_logprobs: tuple[Likely, ...] | None = None


class ReplyLogprobs(Read):
    """Logprobs as a chat spells them, or as completions do."""

    content: tuple[Place, ...] | None = None
    top_logprobs: tuple[Mapping[str, float | None] | None, ...] | None = None

    def first(self) -> Iterator[tuple[str, float]]:
        """The likeliest tokens at the first place, and their logprobs."""
        found: Iterator[tuple[str, float | None]] = iter(())
        if self.content:
            found = ((each.name, each.logprob) for each in self.content[0].top_logprobs or ())
        elif self.top_logprobs and self.top_logprobs[0]:
            found = iter(self.top_logprobs[0].items())
        for token, logprob in found:
            if logprob is not None and math.isfinite(logprob) and logprob > LEAST_LOGPROB:
                yield token, logprob


class Message(Read):
    """What a chat answers."""

    content: str | None = None


class Choice(Read):
    """One answer, of either endpoint."""

    message: Message | None = None
    text: str | None = None
    logprobs: ReplyLogprobs | None = None

    @property
    def said(self) -> str:
        """Its text."""
        return (self.text if self.message is None else self.message.content) or ""


class Used(Read):
    """Tokens that the server counted."""

    total_tokens: int = 0


class Reply(Read):
    """An answered request."""

    choices: tuple[Choice, ...] = Field(min_length=1)
    usage: Used | None = None
    model: str | None = None
    system_fingerprint: str | None = None


class ListedModel(Read):
    """A model in a list."""

    id: str


class ModelList(Read):
    """The models of a server."""

    data: tuple[ListedModel, ...]


def read(kind: type[R], response: httpx2.Response) -> R:
    """Read a reply.

    Raises:
        UnexpectedReply: it is none of that kind.
    """
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise UnexpectedReply(
            f"{response.url} answered, and not as an OpenAI-compatible API does. "
            "Give the address up to and with /v1."
        ) from error


def refusal(response: httpx2.Response) -> TransomError:
    """The error of a refused request, also from servers that do not spell errors as OpenAI does."""
    error = of_response(response)
    if not isinstance(error, UnexpectedReply):
        return error
    said = f"{response.url} answered {response.status_code} {response.reason_phrase}"
    if response.status_code >= 500:
        return EngineUnavailable(f"{said}.", retry_after=_RETRY_AFTER)
    known = _BY_STATUS.get(response.status_code)
    return (
        InvalidRequest(f"{said}: {response.text[:200]}") if known is None else known[0](f"{said}{known[1]}")
    )


_RETRY_AFTER = 5

_BY_STATUS: dict[int, tuple[type[TransomError], str]] = {
    401: (Unauthenticated, ": the key is missing or wrong."),
    403: (Forbidden, ": the key does not allow this."),
    404: (NotFound, ". Give the address up to and with /v1."),
    429: (RateLimited, "."),
}
