"""Answers in OpenAI's shapes, from the results of sequences."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from transom.backends.base import Tokenizer
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measures
from transom.services.answering.generation import Generation

Json = dict[str, Any]


def envelope(generation: Generation, kind: str) -> Json:
    """The fields that every body and every chunk has."""
    digest = generation.served.deployment.digest
    tier, steering = generation.order.service_tier, generation.order.steering
    return {
        "id": generation.record_id,
        "object": kind,
        "created": int(generation.order.received.timestamp()),
        "model": generation.served.name,
        "system_fingerprint": digest,
        "transom": {
            "record": generation.record_id,
            "deployment": digest,
            "seed": generation.order.sampling.seed,
        }
        | ({} if steering is None else {"writes": len(steering.manifest)}),
    } | ({} if tier is None else {"service_tier": tier})


def usage(generation: Generation) -> Json:
    """Tokens that the serving tokenizer counted: each prompt once, every generated token."""
    prompt = sum(map(len, generation.order.prompts))
    completion = sum(len(result.tokens) for result in generation.results)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def prompt_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[TokenLogprob | None], count: int
) -> list[Json | None]:
    """The form of vLLM: null first, then {token id: {logprob, rank, decoded_token}}.

    The actual token comes first, then those of the `count` likeliest that it is not.
    """
    return [None if token is None else _ranked(tokenizer, token, count) for token in tokens]


def _ranked(tokenizer: Tokenizer, token: TokenLogprob, count: int) -> Json:
    entries = [(token.token_id, token.logprob, token.rank)]
    entries += [(i, lp, rank) for rank, (i, lp) in enumerate(token.top[:count], 1) if i != token.token_id]
    return {
        str(i): {"logprob": lp, "rank": rank, "decoded_token": tokenizer.token_text(i)}
        for i, lp, rank in entries
    }


class CompletionLogprobs:
    """The legacy `logprobs` object of completions, which grows as a stream does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0

    def part(self, tokens: Sequence[TokenLogprob | int]) -> Json:
        """Entries for more tokens; an int is a token that nothing predicts, the first of a prompt."""
        ids = [token if isinstance(token, int) else token.token_id for token in tokens]
        texts = [self._tokenizer.token_text(i) for i in ids]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if isinstance(token, int) else token.logprob for token in tokens],
            "top_logprobs": [None if isinstance(token, int) else self._top(token) for token in tokens],
            "text_offset": offsets,
        }

    def _top(self, token: TokenLogprob) -> dict[str, float]:
        """The likeliest tokens and the actual one; its logprob is the same float in both places."""
        spelled = {self._tokenizer.token_text(token.token_id): token.logprob}
        named: dict[str, float] = {}
        for token_id, logprob in token.top:
            # Two tokens may share a spelling; the likelier keeps it, the actual one always.
            text = self._tokenizer.token_text(token_id)
            named.setdefault(text, spelled.get(text, logprob))
        return named | spelled


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> Json:
    """The `logprobs` object of chat completions."""
    return {
        "content": [
            _chat_token(tokenizer, token.token_id, token.logprob)
            | {"top_logprobs": [_chat_token(tokenizer, i, lp) for i, lp in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _chat_token(tokenizer: Tokenizer, token_id: int, logprob: float) -> Json:
    return {
        "token": tokenizer.token_text(token_id),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token_id)),
    }


def of_tokens(
    tokenizer: Tokenizer, params: SamplingParams, tokens: Sequence[TokenLogprob], before: int = 0
) -> Json:
    """What was asked of the whole vocabulary at generated tokens, `before` of which were told already."""
    told: Json = {}
    if params.measures:
        told["measures"] = [_measures(tokenizer, params.measures, token) for token in tokens]
    if params.distributions:
        told["distributions"] = _distributions(enumerate(tokens, before))
    return told


def of_prompt(
    tokenizer: Tokenizer, params: SamplingParams, tokens: Sequence[TokenLogprob | None] | None
) -> Json:
    """The same at a prompt's tokens; null for the first."""
    told: Json = {}
    if tokens is None:
        return told
    if params.prompt_measures:
        told["prompt_measures"] = [
            token and _measures(tokenizer, params.prompt_measures, token) for token in tokens
        ]
    if params.prompt_distributions:
        told["prompt_distributions"] = _distributions(enumerate(tokens))
    return told


def _measures(tokenizer: Tokenizer, measures: Measures, token: TokenLogprob) -> Json:
    named = {"token": tokenizer.token_text(token.token_id), "token_id": token.token_id}
    return named | dict(zip(measures.names, token.values(measures), strict=True))


def _distributions(tokens: Iterable[tuple[int, TokenLogprob | None]]) -> list[Json]:
    """A tensor inline: little-endian, in base64, by token id."""
    return [
        {
            "position": position,
            "dtype": "float32",
            "shape": [len(token.distribution) // 4],
            "b64": base64.b64encode(token.distribution).decode(),
        }
        for position, token in tokens
        if token is not None and token.distribution is not None
    ]


def best(generation: Generation, n: int) -> list[tuple[int, SequenceResult]]:
    """(index of the choice, result) of the sequences to answer with: the n likeliest of each prompt.

    Likeliest is the highest mean logprob of a token. Where no more were drawn than asked for, their order
    is kept.
    """
    candidates = generation.order.candidates
    chosen = []
    for start in range(0, len(generation.results), candidates):
        group = generation.results[start : start + candidates]
        if candidates > n:
            group = sorted(group, key=lambda result: -result.mean_logprob)[:n]
        chosen.extend(group)
    return list(enumerate(chosen))
