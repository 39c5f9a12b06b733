"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from transom.api import reply, shapes, sse
from transom.api.body import AskRoute
from transom.api.dependencies import PathName, RawBody, TheCaller, TheHouse, for_model
from transom.api.errors import documented
from transom.api.openapi import ANSWER
from transom.schema.chat import ChatRequest
from transom.schema.generation import Delta, SequenceResult, TokenLogprob
from transom.services.answering import ask
from transom.services.answering.generation import Generation

router = APIRouter(route_class=AskRoute, tags=["OpenAI"])


@router.post("/chat/completions", responses=ANSWER | documented(400, 401, 404, 413, 415, 500, 503))
async def create_chat_completion(
    request: Request, house: TheHouse, caller: TheCaller, name: PathName, body: ChatRequest, raw: RawBody
) -> Response:
    """Continue a conversation by one assistant's turn."""
    body = for_model(body, name)
    generation = await ask.chat(house, caller, body, raw, "/v1/chat/completions")
    answer = _Answer(generation, body)
    if body.stream:
        return sse.stream(answer.events(), generation)
    return await reply.whole(request, generation, answer.whole)


class _Answer:
    """One chat completion in OpenAI's shape, whole or in chunks."""

    def __init__(self, generation: Generation, body: ChatRequest) -> None:
        self._generation = generation
        self._body = body
        self._tokenizer = generation.order.backend.tokenizer
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        self._envelope = shapes.envelope(generation, kind)
        self._frames: dict[int, sse.Frame] = {}
        self._bare = not (
            body.logprobs or body.return_token_ids or generation.order.sampling.describes_tokens
        )

    def whole(self) -> dict[str, Any]:
        """The body of a reply that is no stream."""
        generation = self._generation
        choices = [self._choice(index, result) for index, result in enumerate(generation.results)]
        body = self._envelope | {"choices": choices, "usage": shapes.usage(generation)}
        return body | self._of_prompt(generation.results[0].prompt_logprobs)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of a stream. What ends a choice is sent once the record is durable."""
        opened: set[int] = set()
        endings: dict[int, Delta] = {}
        async with aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                if index not in opened:
                    of_prompt = {} if opened else self._of_prompt(delta.prompt_logprobs)
                    opened.add(index)
                    yield self._chunk(index, {"role": "assistant", "content": ""}, of_prompt)
                if delta.text or delta.tokens:
                    yield self._said(index, delta)
                if delta.finish_reason is not None:
                    endings[index] = delta
        for index, delta in sorted(endings.items()):
            yield self._chunk(index, {}, finish_reason=delta.finish_reason, stop_reason=delta.stop_reason)
        if self._body.wants_usage:
            yield sse.event(self._envelope | {"choices": [], "usage": shapes.usage(self._generation)})

    def _said(self, index: int, delta: Delta) -> bytes:
        if not self._bare:
            told = len(self._generation.results[index].tokens) - len(delta.tokens)
            return self._chunk(index, {"content": delta.text}, **self._details(delta, told))
        if index not in self._frames:
            self._frames[index] = sse.Frame(self._data(index, {"content": sse.TEXT}))
        return self._frames[index].event(delta.text)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        body: dict[str, Any] | None = None,
        **more: Any,  # noqa: ANN401
    ) -> bytes:
        return sse.event(self._data(index, delta, **more) | (body or {}))

    def _data(self, index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} | more
        usage = {"usage": None} if self._body.wants_usage else {}
        return self._envelope | {"choices": [choice]} | usage

    def _of_prompt(self, known: tuple[TokenLogprob | None, ...] | None) -> dict[str, Any]:
        """What was asked for about the prompt, which all choices share."""
        told = shapes.of_prompt(self._tokenizer, self._generation.order.sampling, known)
        if known is not None and self._body.prompt_logprobs is not None:
            told["prompt_logprobs"] = shapes.prompt_logprobs(
                self._tokenizer, known, self._body.prompt_logprobs
            )
        if self._body.return_token_ids:
            told["prompt_token_ids"] = list(self._generation.order.prompts[0])
        return told

    def _details(self, delta: Delta, told: int = 0) -> dict[str, Any]:
        """What was asked for about the tokens of a piece, `told` tokens being in those before."""
        params = self._generation.order.sampling
        details = shapes.of_tokens(self._tokenizer, params, delta.tokens, told)
        if self._body.logprobs:
            details["logprobs"] = shapes.chat_logprobs(self._tokenizer, delta.tokens)
        if self._body.return_token_ids:
            details["token_ids"] = [token.token_id for token in delta.tokens]
        return details

    def _choice(self, index: int, result: SequenceResult) -> dict[str, Any]:
        whole = Delta(tokens=tuple(result.tokens))
        return {
            "index": index,
            "message": {"role": "assistant", "content": result.text, "refusal": None},
            "logprobs": None,
            "finish_reason": result.finish_reason,
            "stop_reason": result.stop_reason,
        } | self._details(whole)
