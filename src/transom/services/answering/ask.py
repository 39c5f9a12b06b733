"""Asking a model: completions and chat, checked and rendered into an order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from transom.access.keys.callers import Caller
from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.chat import ChatRequest
from transom.schema.completions import CompletionRequest
from transom.schema.generation import SamplingParams
from transom.schema.steering import SteeredBody
from transom.schema.wire import SamplingBody
from transom.services.answering.generation import Generation, Order, begin
from transom.services.answering.seeds import seed_of
from transom.services.answering.steering import MAX_BYTES, Steering, artifacts_of, steer
from transom.services.house import House
from transom.services.metering import allow
from transom.services.planning import artifacts
from transom.services.planning.wholes import check_wholes

MAX_SEQUENCES = 512
"""Most sequences that one request may start."""


async def complete(
    house: House, caller: Caller, body: CompletionRequest, raw: dict[str, Any], endpoint: str
) -> Generation:
    """Continue a prompt, or several.

    Raises:
        TermsNotAccepted, Conflict: the caller may ask nothing new.
        InvalidRequest: a field is wrong in a way that only the model at hand can tell, or a commitment of
            `transom.seed` is none that waits for its request.
        NotFound: the model is not served here.
        EngineUnavailable: it is, but not at this moment.
        EngineBusy: too many sequences wait there; nothing was taken.
    """
    received = house.now()
    backend = house.backend(body.model)
    prompts = encode_prompts(backend, body)
    candidates = candidates_of(body)
    _check(backend, body, prompts, body.max_tokens, candidates)
    steering = await _steering(house, caller, backend, body, prompts, body.max_tokens, candidates)
    async with seed_of(house, caller, body) as seed:
        order = Order(
            endpoint=endpoint,
            backend=backend,
            request=raw,
            messages=None,
            prompts=prompts,
            sampling=completion_sampling(backend, body, seed.value),
            seed_source=seed.source,
            joint=seed.joint,
            candidates=candidates,
            received=received,
            steering=steering,
            service_tier=body.tier,
            priority=body.priority,
        )
        return await begin(house, caller, order)


async def chat(
    house: House, caller: Caller, body: ChatRequest, raw: dict[str, Any], endpoint: str
) -> Generation:
    """Continue a conversation; raises as `complete` does."""
    received = house.now()
    backend = house.backend(body.model)
    messages = [message.plain() for message in body.messages]
    prompt = render(backend, messages)
    max_tokens = _chat_max_tokens(backend, body, prompt)
    _check(backend, body, [prompt], max_tokens, body.n)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    steering = await _steering(house, caller, backend, body, [prompt], max_tokens, body.n)
    async with seed_of(house, caller, body) as seed:
        order = Order(
            endpoint=endpoint,
            backend=backend,
            request=raw,
            messages=messages,
            prompts=[prompt],
            sampling=chat_sampling(backend, body, seed.value, prompt),
            seed_source=seed.source,
            joint=seed.joint,
            candidates=body.n,
            received=received,
            steering=steering,
            service_tier=body.tier,
            priority=body.priority,
        )
        return await begin(house, caller, order)


async def _steering(
    house: House,
    caller: Caller,
    backend: Backend,
    body: SteeredBody,
    prompts: Sequence[tuple[int, ...]],
    most: int,
    candidates: int,
) -> Steering | None:
    if not body.writes:
        return None
    wanted, given = artifacts_of(body.writes), {}
    if wanted:
        # Nothing is read for whoever may not write.
        await allow(house, caller, "internals:write")
        given = await artifacts.take(house, caller, wanted, MAX_BYTES // (len(prompts) * candidates))
    # Prompts and positions may be many; others would notice how long it takes.
    return await asyncio.to_thread(steer, backend, body.writes, given, prompts, most, candidates)


def render(backend: Backend, messages: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """The token ids of a conversation, as the chat template spells it.

    Raises:
        InvalidRequest: the model has no template, or its template refuses these messages.
    """
    if not backend.tokenizer.has_chat_template:
        raise InvalidRequest(
            f"{backend.served.name} is a base model without a chat template; ask /v1/completions.",
            param="messages",
        )
    text = backend.tokenizer.render(messages)
    # The template spells the special tokens out.
    return tuple(backend.tokenizer.encode(text, add_special_tokens=False))


def encode_prompts(backend: Backend, body: CompletionRequest) -> list[tuple[int, ...]]:
    """The token ids of each prompt; those that came as token ids are taken as they are."""
    prompt = body.prompt
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        items: Sequence[Any] = [prompt]
    else:
        items = prompt
    return [
        tuple(
            backend.tokenizer.encode(item, add_special_tokens=body.add_special_tokens)
            if isinstance(item, str)
            else item
        )
        for item in items
    ]


def candidates_of(body: CompletionRequest) -> int:
    """How many sequences are drawn from each prompt.

    Raises:
        InvalidRequest: `n` and `best_of` do not go together.
    """
    if body.best_of is None:
        return body.n
    if body.best_of < body.n:
        raise InvalidRequest(f"best_of must be at least n, which is {body.n}.", param="best_of")
    if body.stream and body.best_of > body.n:
        raise InvalidRequest(
            "best_of above n cannot be streamed: the best is known at the end.", param="best_of"
        )
    return body.best_of


def _chat_max_tokens(backend: Backend, body: ChatRequest, prompt: tuple[int, ...]) -> int:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequest("Give max_completion_tokens or max_tokens, not both.", param="max_tokens")
    given = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    room = backend.served.deployment.policy.max_model_len - len(prompt)
    return max(1, room) if given is None else given


def _check(
    backend: Backend, body: SamplingBody, prompts: Sequence[tuple[int, ...]], max_tokens: int, candidates: int
) -> None:
    param = "messages" if isinstance(body, ChatRequest) else "prompt"
    most = min(MAX_SEQUENCES, backend.max_sequences)
    if len(prompts) * candidates > most:
        raise InvalidRequest(
            f"{len(prompts)} prompts times {candidates} is more than {most} sequences; ask for less at once.",
            param=param if len(prompts) > 1 else _choices_param(body),
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream to be true.", param="stream_options")
    for index, prompt in enumerate(prompts):
        where = f"Prompt {index}" if len(prompts) > 1 else "The prompt"
        check_prompt(backend, prompt, where, param)
        limit = backend.served.deployment.policy.max_model_len
        if len(prompt) + max_tokens > limit:
            raise InvalidRequest(
                f"{where} has {len(prompt)} tokens and asks for {max_tokens} more; the context has {limit}.",
                param=param if len(prompt) >= limit else _length_param(body),
                code="context_length_exceeded",
            )
    check_wholes(backend, body, prompts, max_tokens, candidates)


def check_prompt(backend: Backend, prompt: tuple[int, ...], where: str, param: str) -> None:
    """Pass a prompt whose tokens exist.

    Raises:
        InvalidRequest: one does not, or it has none.
    """
    vocabulary = backend.tokenizer.vocab_size
    if not prompt:
        raise InvalidRequest(f"{where} has no tokens.", param=param)
    if max(prompt) >= vocabulary:
        raise InvalidRequest(
            f"{where} holds token {max(prompt)}; the vocabulary has {vocabulary}.", param=param
        )


def _choices_param(body: SamplingBody) -> str:
    """The field that said how many sequences to draw."""
    return "best_of" if isinstance(body, CompletionRequest) and body.best_of is not None else "n"


def _length_param(body: SamplingBody) -> str:
    """The field that said how much to generate."""
    newer = isinstance(body, ChatRequest) and body.max_completion_tokens is not None
    return "max_completion_tokens" if newer else "max_tokens"


def completion_sampling(backend: Backend, body: CompletionRequest, seed: int) -> SamplingParams:
    """How the tokens of a completion are drawn.

    Raises:
        InvalidRequest: a token that is named does not exist.
    """
    return _sampling(
        backend,
        body,
        seed,
        max_tokens=body.max_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=_wider(body.prompt_logprobs, body.logprobs if body.echo else None),
    )


def chat_sampling(backend: Backend, body: ChatRequest, seed: int, prompt: tuple[int, ...]) -> SamplingParams:
    """How the tokens of a reply in a conversation are drawn; raises as `completion_sampling`."""
    return _sampling(
        backend,
        body,
        seed,
        max_tokens=_chat_max_tokens(backend, body, prompt),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
    )


def _sampling(
    backend: Backend,
    body: SamplingBody,
    seed: int,
    *,
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    vocabulary = backend.tokenizer.vocab_size
    return SamplingParams(
        seed=seed,
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_k=max(0, body.top_k),
        top_p=body.top_p,
        min_p=body.min_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        logit_bias=bias_of(body.logit_bias, vocabulary),
        stop=body.stop_strings,
        stop_token_ids=_in_vocabulary(body.stop_token_ids, vocabulary),
        ignore_eos=body.ignore_eos,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        measures=None if body.measures is None else body.measures.asked,
        prompt_measures=None if body.prompt_measures is None else body.prompt_measures.asked,
        distributions=tuple(body.distributions),
        prompt_distributions=tuple(body.prompt_distributions),
    )


def bias_of(bias: dict[str, float], vocabulary: int) -> tuple[tuple[int, float], ...]:
    """The biases by token id.

    Raises:
        InvalidRequest: one is of no token, or of one that has another.
    """
    found: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 12 and int(key) < vocabulary):
            raise InvalidRequest(
                f"{key[:20]!r} is no token id; the vocabulary has {vocabulary}.",
                param=f"logit_bias.{key[:20]}",
            )
        if int(key) in found:
            raise InvalidRequest(f"Token {int(key)} is biased twice.", param="logit_bias")
        found[int(key)] = value
    return tuple(sorted(found.items()))


def _in_vocabulary(token_ids: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    for index, token_id in enumerate(token_ids):
        if token_id >= vocabulary:
            raise InvalidRequest(
                f"Token {token_id} does not exist; the vocabulary has {vocabulary}.",
                param=f"stop_token_ids.{index}",
            )
    return tuple(token_ids)


def _wider(left: int | None, right: int | None) -> int | None:
    """The larger of two counts, where None is none at all."""
    return max((count for count in (left, right) if count is not None), default=None)
