"""What the body on record asks for, derived anew: a record may not say that something else was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pydantic import ValidationError

from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.records.reading import RecordedRequest
from transom.schema.chat import ChatRequest
from transom.schema.completions import CompletionRequest
from transom.schema.generation import SamplingParams
from transom.schema.scoring import ScoreRequest
from transom.services.answering import scoring
from transom.services.answering.ask import (
    candidates_of,
    chat_sampling,
    completion_sampling,
    encode_prompts,
    render,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the server understands it now."""

    messages: Sequence[Mapping[str, Any]] | None
    prompts: Sequence[tuple[int, ...]]
    sampling: SamplingParams
    candidates: int
    """Sequences drawn from each prompt."""

    def departs(self, request: RecordedRequest, n: int, *, complete: bool) -> str | None:
        """Where a record says other than this: `RENDER`, or `REQUEST`; None where it does nowhere.

        Args:
            request: of the record.
            n: its word for `candidates`.
            complete: whether every sequence is said to have come to its end.
        """
        if list(self.prompts) != request.prompts:
            return "RENDER"
        places = list(product(range(len(self.prompts)), range(self.candidates)))
        found = [(sequence.prompt_index, sequence.choice) for sequence in request.sequences]
        same = (
            self.candidates == n
            and found == (places if complete else places[: len(found)])
            and self.messages == request.messages
            and self.sampling == request.sampling
        )
        return None if same else "REQUEST"


def read_body(backend: Backend, request: RecordedRequest) -> Asked | None:
    """What the body asks for; None where that is refused now."""
    body, seed = request.body | {"model": backend.served.name}, request.sampling.seed
    try:
        if request.endpoint == scoring.ENDPOINT:
            return _score(backend, ScoreRequest.model_validate(body), seed)
        if request.messages is not None:
            return _chat(backend, ChatRequest.model_validate(body), seed)
        return _completion(backend, CompletionRequest.model_validate(body), seed)
    except (InvalidRequest, ValidationError):
        return None


def _score(backend: Backend, body: ScoreRequest, seed: int) -> Asked:
    prompts = [question.whole for question in scoring.questions_of(backend, body)]
    return Asked(None, prompts, scoring.scoring_sampling(backend, body, seed), 1)


def _chat(backend: Backend, body: ChatRequest, seed: int) -> Asked:
    messages = [message.plain() for message in body.messages]
    prompt = render(backend, messages)
    return Asked(messages, [prompt], chat_sampling(backend, body, seed, prompt), body.n)


def _completion(backend: Backend, body: CompletionRequest, seed: int) -> Asked:
    prompts = encode_prompts(backend, body)
    return Asked(None, prompts, completion_sampling(backend, body, seed), candidates_of(body))


def of_another_profile(asked: Asked, request: RecordedRequest) -> Asked:
    """The same, where another deployment answered: how long it may be at most is that one's to say."""
    if {"max_tokens", "max_completion_tokens"} & request.body.keys():
        return asked
    return replace(asked, sampling=replace(asked.sampling, max_tokens=request.sampling.max_tokens))
