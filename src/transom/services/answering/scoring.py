"""Scoring answers from anywhere: what the model makes of each token, and whether it would have drawn it.

A scored answer is part of the prompt of its record, and what is on record of it is how the model predicts
that prompt. With a seed the answer is judged too, as a replay judges what was generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transom.access.keys.callers import Caller
from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.scoring import ScoreItem, ScoreRequest
from transom.services.answering.ask import (
    MAX_SEQUENCES,
    bias_of,
    check_prompt,
    render,
)
from transom.services.answering.generation import Generation, Judging, Order, begin
from transom.services.answering.seeds import own_seed
from transom.services.house import House

ENDPOINT = "/v1/score"


@dataclass(frozen=True, slots=True)
class Question:
    """The tokens of one answer, and of what comes before it."""

    before: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """Both, as they are on record."""
        return self.before + self.answer


@dataclass(frozen=True, slots=True)
class Scoring:
    """Answers that are being scored."""

    generation: Generation
    questions: Sequence[Question]

    @property
    def answers(self) -> list[SequenceResult]:
        """Of each answer, its tokens alone, judged where they were to be."""
        results = self.generation.results
        if self.generation.order.judging is not None:
            return results
        return [
            SequenceResult(tokens=[token for token in scores[len(question.before) :] if token is not None])
            for question, scores in zip(
                self.questions, (result.prompt_logprobs or () for result in results), strict=True
            )
        ]


async def score(house: House, caller: Caller, body: ScoreRequest, raw: dict[str, Any]) -> Scoring:
    """Begin to score answers; run the generation, and they are.

    Raises:
        TermsNotAccepted, Conflict: the caller may ask nothing new.
        InvalidRequest: a field is wrong in a way that only the model at hand can tell.
        NotFound: the model is not served here.
        EngineUnavailable: it is, but not at this moment.
        EngineBusy: too many sequences wait there; nothing was taken.
    """
    received = house.now()
    backend = house.backend(body.model)
    questions = questions_of(backend, body)
    _check(backend, body, questions)
    seed = own_seed(body)
    sampling = scoring_sampling(backend, body, seed.value)
    order = Order(
        endpoint=ENDPOINT,
        backend=backend,
        request=raw,
        messages=None,
        prompts=[question.whole for question in questions],
        sampling=sampling,
        seed_source=seed.source,
        candidates=1,
        received=received,
        service_tier=body.tier,
        priority=body.priority,
        judging=None if body.seed is None else _judging(sampling, questions),
    )
    return Scoring(await begin(house, caller, order), questions)


def questions_of(backend: Backend, body: ScoreRequest) -> list[Question]:
    """The token ids of what was sent.

    Raises:
        InvalidRequest: the model has no chat template, or its template refuses the messages.
    """
    return [_question(backend, body, index, item) for index, item in enumerate(body.asked)]


def _question(backend: Backend, body: ScoreRequest, index: int, item: ScoreItem) -> Question:
    if item.messages is None:
        before = _ids(backend, item.prompt or "", special=body.add_special_tokens)
    else:
        try:
            before = render(backend, [message.plain() for message in item.messages])
        except InvalidRequest as error:
            raise InvalidRequest(error.message, param=body.field(index, "messages")) from error
    return Question(before, _ids(backend, item.completion, special=False))


def _ids(backend: Backend, given: str | list[int], *, special: bool) -> tuple[int, ...]:
    if isinstance(given, str):
        return tuple(backend.tokenizer.encode(given, add_special_tokens=special))
    return tuple(given)


def _check(backend: Backend, body: ScoreRequest, questions: Sequence[Question]) -> None:
    most = min(MAX_SEQUENCES, backend.max_sequences)
    if len(questions) > most:
        raise InvalidRequest(
            f"{len(questions)} answers are more than {most} sequences; send fewer at once.", param="items"
        )
    limit, vocabulary = backend.served.deployment.policy.max_model_len, backend.tokenizer.vocab_size
    for index, (item, question) in enumerate(zip(body.asked, questions, strict=True)):
        where = "" if body.items is None else f" of item {index}"
        asked = body.field(index, "prompt" if item.messages is None else "messages")
        check_prompt(backend, question.before, f"The prompt{where}", asked)
        check_prompt(backend, question.answer, f"The answer{where}", body.field(index, "completion"))
        if len(question.whole) > limit:
            raise InvalidRequest(
                f"The prompt{where} has {len(question.before)} tokens and its answer {len(question.answer)}; "
                f"the context has {limit}.",
                param=asked if len(question.before) >= limit else body.field(index, "completion"),
                code="context_length_exceeded",
            )
    if body.measures is not None and body.measures.asked.top_k_mass > vocabulary:
        raise InvalidRequest(
            f"The vocabulary has {vocabulary} tokens; ask for the mass of no more.",
            param="measures.top_k_mass",
        )


def scoring_sampling(backend: Backend, body: ScoreRequest, seed: int) -> SamplingParams:
    """What is on record: nothing is generated, and everything is scored."""
    return SamplingParams(
        seed=seed,
        max_tokens=0,
        temperature=body.temperature,
        top_k=max(0, body.top_k),
        top_p=body.top_p,
        min_p=body.min_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=bias_of(body.logit_bias, backend.tokenizer.vocab_size),
        prompt_logprobs=body.logprobs,
        prompt_measures=None if body.measures is None else body.measures.asked,
    )


def _judging(sampling: SamplingParams, questions: Sequence[Question]) -> Judging:
    """The same of answers that are judged: an answer goes on behind an end of sequence, as it was sent."""
    return Judging(
        questions=[len(question.before) for question in questions],
        sampling=replace(
            sampling,
            ignore_eos=True,
            logprobs=sampling.prompt_logprobs,
            measures=sampling.prompt_measures,
        ),
    )
