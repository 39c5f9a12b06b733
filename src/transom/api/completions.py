"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from transom.api import reply, shapes, sse
from transom.api.body import AskRoute
from transom.api.dependencies import PathName, RawBody, TheCaller, TheHouse, for_model
from transom.api.errors import documented
from transom.api.openapi import ANSWER
from transom.schema.completions import CompletionRequest
from transom.schema.generation import Delta, SequenceResult, TokenLogprob
from transom.services.answering import ask
from transom.services.answering.generation import Generation

router = APIRouter(route_class=AskRoute, tags=["OpenAI"])


@router.post("/completions", responses=ANSWER | documented(400, 401, 404, 413, 415, 500, 503))
async def create_completion(
    request: Request,
    house: TheHouse,
    caller: TheCaller,
    name: PathName,
    body: CompletionRequest,
    raw: RawBody,
) -> Response:
    """Continue a prompt, or several."""
    body = for_model(body, name)
    generation = await ask.complete(house, caller, body, raw, "/v1/completions")
    answer = _Answer(generation, body)
    if body.stream:
        return sse.stream(answer.events(), generation)
    return await reply.whole(request, generation, answer.whole)


class _Answer:
    """One completion in OpenAI's shape, whole or in chunks."""

    def __init__(self, generation: Generation, body: CompletionRequest) -> None:
        self._generation = generation
        self._body = body
        self._tokenizer = generation.order.backend.tokenizer
        self._envelope = shapes.envelope(generation, "text_completion")
        self._frames: dict[int, sse.Frame] = {}
        asked = body.logprobs is not None or body.return_token_ids
        self._bare = not (asked or generation.order.sampling.describes_tokens)

    def whole(self) -> dict[str, Any]:
        """The body of a reply that is no stream."""
        chosen = shapes.best(self._generation, self._body.n)
        choices = [self._choice(index, result) for index, result in chosen]
        return self._envelope | {"choices": choices, "usage": shapes.usage(self._generation)}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of a stream. What ends a choice is sent once the record is durable."""
        endings: dict[int, Delta] = {}
        spoken: dict[int, shapes.CompletionLogprobs] = {}
        async with aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                first = index not in spoken
                logprobs = spoken.setdefault(index, shapes.CompletionLogprobs(self._tokenizer))
                if self._bare and not first and (delta.text or delta.tokens):
                    yield self._said(index, logprobs, delta.text)
                elif first or delta.text or delta.tokens:
                    told = len(self._generation.results[index].tokens) - len(delta.tokens)
                    yield self._chunk([self._part(index, delta, logprobs, first=first, told=told)])
                if delta.finish_reason is not None:
                    endings[index] = delta
        for index, delta in sorted(endings.items()):
            yield self._chunk([self._ending(index, delta)])
        if self._body.wants_usage:
            yield sse.event(self._envelope | {"choices": [], "usage": shapes.usage(self._generation)})

    def _said(self, index: int, logprobs: shapes.CompletionLogprobs, text: str) -> bytes:
        if index not in self._frames:
            part = self._part(index, Delta(text=sse.TEXT), logprobs, first=False)
            self._frames[index] = sse.Frame(self._data([part]))
        return self._frames[index].event(text)

    def _chunk(self, choices: Sequence[dict[str, Any]]) -> bytes:
        return sse.event(self._data(choices))

    def _data(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._body.wants_usage else {}
        return self._envelope | {"choices": choices} | usage

    def _part(
        self, index: int, delta: Delta, logprobs: shapes.CompletionLogprobs, *, first: bool, told: int = 0
    ) -> dict[str, Any]:
        """A piece of a choice, `told` tokens of which are in the pieces before."""
        prompt = self._generation.place(index)[0]
        known, params = delta.prompt_logprobs, self._generation.order.sampling
        tokens = [*(self._echoed(prompt, known) if first and self._body.echo else []), *delta.tokens]
        part: dict[str, Any] = {
            "index": index,
            "text": (self._prompt_text(prompt) if first and self._body.echo else "") + delta.text,
            "finish_reason": None,
            "logprobs": None if self._body.logprobs is None else logprobs.part(tokens),
        }
        if first and known is not None and self._body.prompt_logprobs is not None:
            part["prompt_logprobs"] = shapes.prompt_logprobs(
                self._tokenizer, known, self._body.prompt_logprobs
            )
        part |= shapes.of_tokens(self._tokenizer, params, delta.tokens, told)
        part |= shapes.of_prompt(self._tokenizer, params, known)
        if self._body.return_token_ids:
            part["token_ids"] = [token.token_id for token in delta.tokens]
            if first:
                part["prompt_token_ids"] = list(self._generation.order.prompts[prompt])
        return part

    def _ending(self, index: int, delta: Delta) -> dict[str, Any]:
        return {
            "index": index,
            "text": "",
            "logprobs": None,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }

    def _choice(self, index: int, result: SequenceResult) -> dict[str, Any]:
        at = index // self._body.n * self._generation.order.candidates
        whole = Delta(tokens=tuple(result.tokens), text=result.text, prompt_logprobs=result.prompt_logprobs)
        part = self._part(at, whole, shapes.CompletionLogprobs(self._tokenizer), first=True)
        ending = {"finish_reason": result.finish_reason, "stop_reason": result.stop_reason}
        return part | {"index": index} | ending

    def _echoed(self, prompt: int, known: tuple[TokenLogprob | None, ...] | None) -> list[TokenLogprob | int]:
        ids = self._generation.order.prompts[prompt]
        count = self._body.logprobs or 0
        if known is None:
            return []
        return [
            token_id
            if token is None
            else TokenLogprob(token_id, token.logprob, token.rank, token.top[:count])
            for token_id, token in zip(ids, known, strict=True)
        ]

    def _prompt_text(self, prompt: int) -> str:
        given = self._body.prompt
        if isinstance(given, str):
            return given
        item = given[prompt]
        return (
            item if isinstance(item, str) else self._tokenizer.decode(self._generation.order.prompts[prompt])
        )
