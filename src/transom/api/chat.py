"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from transom.api import reply, shapes, sse
from transom.api.body import JsonRoute
from transom.api.dependencies import PathName, RawBody, TheCaller, TheHouse, for_model
from transom.api.errors import documented
from transom.schema.chat import ChatRequest
from transom.schema.generation import Delta, SequenceResult
from transom.services import ask
from transom.services.generation import Generation

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])


@router.post("/chat/completions", responses=documented(400, 401, 403, 404, 413, 415, 500, 503))
async def create_chat_completion(
    request: Request, house: TheHouse, caller: TheCaller, name: PathName, body: ChatRequest, raw: RawBody
) -> Response:
    """Continue a conversation by one assistant's turn."""
    body = for_model(body, name)
    generation = ask.chat(house, caller, body, raw, "/v1/chat/completions")
    answer = _Answer(generation, body)
    if body.stream:
        return sse.stream(answer.events(), generation.record_id)
    return await reply.whole(request, generation, answer.whole)


class _Answer:
    """One chat completion in OpenAI's shape, whole or in chunks."""

    def __init__(self, generation: Generation, body: ChatRequest) -> None:
        self._generation = generation
        self._body = body
        self._tokenizer = generation.order.backend.tokenizer

    def whole(self) -> dict[str, Any]:
        """The body of a reply that is no stream."""
        generation = self._generation
        choices = [self._choice(index, result) for index, result in enumerate(generation.results)]
        known = generation.results[0].prompt_logprobs
        extra: dict[str, Any] = {}
        if known is not None:
            extra["prompt_logprobs"] = shapes.prompt_logprobs(self._tokenizer, known)
        if self._body.return_token_ids:
            extra["prompt_token_ids"] = list(generation.order.prompts[0])
        envelope = shapes.envelope(generation, "chat.completion")
        return envelope | {"choices": choices, "usage": shapes.usage(generation)} | extra

    async def events(self) -> AsyncIterator[bytes]:
        """The events of a stream. What ends a choice is sent once the record is durable."""
        endings: dict[int, Delta] = {}
        for index in range(len(self._generation.results)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async with aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                if delta.text or delta.tokens:
                    yield self._chunk(index, {"content": delta.text}, **self._details(delta))
                if delta.finish_reason is not None:
                    endings[index] = delta
        for index, delta in sorted(endings.items()):
            yield self._chunk(index, {}, finish_reason=delta.finish_reason, stop_reason=delta.stop_reason)
        if self._wants_usage:
            envelope = shapes.envelope(self._generation, "chat.completion.chunk")
            yield sse.event(envelope | {"choices": [], "usage": shapes.usage(self._generation)})

    @property
    def _wants_usage(self) -> bool:
        options = self._body.stream_options
        return options is not None and options.include_usage

    def _chunk(self, index: int, delta: dict[str, Any], **more: Any) -> bytes:  # noqa: ANN401
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} | more
        usage = {"usage": None} if self._wants_usage else {}
        return sse.event(
            shapes.envelope(self._generation, "chat.completion.chunk") | {"choices": [choice]} | usage
        )

    def _details(self, delta: Delta) -> dict[str, Any]:
        details: dict[str, Any] = {}
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
