"""Every request that the client can make, as data: what to send, and how to read what comes back.

Nothing here touches the network. `Client` and `AsyncClient` carry these out, each in its own way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx2

from transom.client import downloads, failures
from transom.client.inside import Traced
from transom.client.options import Conversation, Prompt
from transom.client.types import Chat, ChatChunk, Completion, CompletionChunk, Model, ModelList, Text, Tokens
from transom.errors import InvalidRequest
from transom.schema.envelopes import PublicKeys
from transom.schema.explanations import Explanation
from transom.schema.manifest import Manifest
from transom.schema.point_views import PointPage
from transom.schema.randomness import Promises
from transom.schema.record import RecordPage, RecordView, ReplayReport

T = TypeVar("T")
D = TypeVar("D")

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent that is no JSON; it is not in memory as a whole, unless it was before."""

    media_type: str
    size: int
    pieces: Callable[[], Iterator[bytes]]
    """Reads it from its beginning."""

    @property
    def headers(self) -> dict[str, str]:
        """What its request says of it."""
        return {"content-type": self.media_type, "content-length": str(self.size)}

    async def awaited(self) -> AsyncIterator[bytes]:
        """Its pieces, read beside the event loop."""
        pieces = self.pieces()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One request, and how to read its reply."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    parse: Callable[[bytes], T]
    """Reads the body of a reply, or the data of one event of a stream. Raises ValueError."""
    json: Mapping[str, Any] | None = None
    params: Mapping[str, str | int] | None = None
    heed: Callable[[T, Mapping[str, str]], T] | None = None
    """Adds to a reply what only its headers say."""
    content: Body | None = None
    parse_large: Callable[[memoryview], T] | None = None
    """Reads a body that is in memory once, and may be written to; else as `parse`."""

    def with_text(self) -> Operation[tuple[str, T]]:
        """The same request, with the reply also as the text that arrived."""
        parse = self.parse
        return Operation(
            self.method, self.path, lambda data: (data.decode(), parse(data)), self.json, self.params
        )

    def room(self, response: httpx2.Response) -> downloads.Large | None:
        """Where the body of a reply is to be put; None where that does not matter."""
        return None if self.parse_large is None else downloads.Large.expected(response)

    def read(self, response: httpx2.Response, large: downloads.Large | None = None) -> T:
        """The reply to a request, whose body was read, or put there.

        Raises:
            TransomError: the server refused, or what answered is no Transom server.
        """
        if not response.is_success:
            raise failures.of_response(response)
        if large is None or self.parse_large is None:
            found = self._understand(self.parse, response.content)
        else:
            found = self._understand(self.parse_large, large.content)
        return found if self.heed is None else self.heed(found, response.headers)

    def read_event(self, event: httpx2.ServerSentEvent) -> T:
        """One event of a stream; raises as `read` does."""
        if event.event == "error":
            raise failures.of_event(event.data)
        return self._understand(self.parse, event.data.encode())

    def _understand(self, parse: Callable[[D], T], data: D) -> T:
        try:
            return parse(data)
        except ValueError as error:
            raise failures.UnexpectedReply(
                f"The reply to {self.method} {self.path} is no Transom server's. Check the address."
            ) from error


def complete(model: str, prompt: Prompt, options: Mapping[str, Any]) -> Operation[Completion]:
    """`POST /v1/completions`."""
    body = _body(options, model=model, prompt=prompt)
    return Operation("POST", "/v1/completions", Completion.model_validate_json, body)


def chat(model: str, messages: Conversation, options: Mapping[str, Any]) -> Operation[Chat]:
    """`POST /v1/chat/completions`."""
    body = _body(options, model=model, messages=_messages(messages))
    return Operation("POST", "/v1/chat/completions", Chat.model_validate_json, body)


def stream_complete(model: str, prompt: Prompt, options: Mapping[str, Any]) -> Operation[CompletionChunk]:
    """The same as a stream."""
    return _streamed(complete(model, prompt, options), CompletionChunk.model_validate_json)


def stream_chat(model: str, messages: Conversation, options: Mapping[str, Any]) -> Operation[ChatChunk]:
    """The same as a stream."""
    return _streamed(chat(model, messages, options), ChatChunk.model_validate_json)


def tokenize(model: str, text: Conversation, *, add_special_tokens: bool | None) -> Operation[Tokens]:
    """`POST /tokenize`."""
    what = "prompt" if isinstance(text, str) else "messages"
    body = _body({"add_special_tokens": add_special_tokens}, model=model, **{what: text})
    return Operation("POST", "/tokenize", Tokens.model_validate_json, body)


def spell(model: str, said: Mapping[str, Any]) -> Operation[Tokens]:
    """`POST /tokenize` of a prompt or messages, with what each token is spelled like."""
    body = {**said, "model": model, "return_token_strs": True}
    return Operation("POST", "/tokenize", Tokens.model_validate_json, body)


def detokenize(model: str, token_ids: Sequence[int]) -> Operation[str]:
    """`POST /detokenize`."""
    body = _body({}, model=model, tokens=list(token_ids))
    return Operation("POST", "/detokenize", lambda data: Text.model_validate_json(data).prompt, body)


def models() -> Operation[tuple[Model, ...]]:
    """`GET /v1/models`."""
    return Operation("GET", "/v1/models", lambda data: ModelList.model_validate_json(data).data)


def records(after: str | None, limit: int) -> Operation[RecordPage]:
    """`GET /v1/records`."""
    params: dict[str, str | int] = {"limit": limit} if after is None else {"limit": limit, "after": after}
    return Operation("GET", "/v1/records", RecordPage.model_validate_json, params=params)


def record(record_id: str) -> Operation[RecordView]:
    """`GET /v1/records/{id}`."""
    return Operation("GET", _record_path(record_id), RecordView.model_validate_json)


def seeds(count: int) -> Operation[Promises]:
    """`POST /v1/seeds`."""
    return Operation("POST", "/v1/seeds", Promises.model_validate_json, {"count": count})


def receipt(record_id: str) -> Operation[str]:
    """`GET /v1/records/{id}/receipt`."""
    return Operation("GET", _record_path(record_id) + "/receipt", bytes.decode)


def public_keys() -> Operation[PublicKeys]:
    """`GET /.well-known/transom-keys`."""
    return Operation("GET", "/.well-known/transom-keys", PublicKeys.model_validate_json)


def replay(record_id: str) -> Operation[ReplayReport]:
    """`POST /v1/records/{id}/replay`."""
    return Operation("POST", _record_path(record_id) + "/replay", ReplayReport.model_validate_json)


def points(model: str) -> Operation[PointPage]:
    """`GET /v1/points`."""
    return Operation("GET", "/v1/points", PointPage.model_validate_json, params={"model": model})


def trace(model: str, plan: Mapping[str, Any]) -> Operation[Traced]:
    """`POST /v1/traces`."""
    body = {**plan, "model": model, "format": "safetensors"}
    return Operation("POST", "/v1/traces", Traced.parse, body, heed=Traced.said_by, parse_large=Traced.over)


def explain(model: str, plan: Mapping[str, Any]) -> Operation[Explanation]:
    """`POST /v1/traces/explain`."""
    body = {**plan, "model": model, "format": "parts"}
    return Operation("POST", "/v1/traces/explain", Explanation.model_validate_json, body)


def manifest(model: str, plan: Mapping[str, Any]) -> Operation[Manifest]:
    """`POST /v1/traces`, for a result that is fetched apart."""
    body = {**plan, "model": model, "format": "parts"}
    return Operation("POST", "/v1/traces", Manifest.model_validate_json, body)


def result_path(manifest: Manifest) -> str:
    """Where the file of a result is; the server's own word for it could lead elsewhere."""
    return f"/v1/traces/{quote(manifest.id, safe='')}/file"


def discard(manifest: Manifest) -> Operation[None]:
    """`DELETE /v1/traces/{id}/file`."""
    return Operation("DELETE", result_path(manifest), lambda _: None)


def wants_parts(plan: Mapping[str, Any]) -> bool:
    """Whether a plan says that its result is to be fetched apart."""
    return plan.get("format") == "parts"


def is_too_large(refusal: InvalidRequest) -> bool:
    """Whether a plan was refused because its result does not fit one answer; parts do."""
    return (refusal.param, refusal.reason) == ("format", "plan_too_large")


def only_model(served: Sequence[Model]) -> str:
    """The model that is meant when none is named.

    Raises:
        InvalidRequest: there is more than one to mean, or none.
    """
    if len(served) == 1:
        return served[0].id
    choices = ", ".join(sorted(model.id for model in served)) or "none"
    raise InvalidRequest(f"Name a model; served here: {choices}.", param="model", code="missing_parameter")


def _body(options: Mapping[str, Any], **fields: object) -> dict[str, Any]:
    if "stream" in options:
        raise TypeError("stream is no option; call stream_complete or stream_chat")
    body = {key: value for key, value in options.items() if value is not None} | fields
    extension: dict[str, Any] = {}
    if "write" in body:
        extension["write"] = list(body.pop("write"))
    if "joint_seed" in body:
        extension["seed"] = dict(body.pop("joint_seed"))
    return body | {"transom": extension} if extension else body


def _messages(messages: Conversation) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _streamed(operation: Operation[Any], parse: Callable[[bytes], T]) -> Operation[T]:
    # Usage is always asked for: a stream should tell no less than a whole reply.
    body = {**(operation.json or {}), "stream": True, "stream_options": {"include_usage": True}}
    return replace(operation, parse=parse, json=body)


def _record_path(record_id: str) -> str:
    if not record_id.strip("."):
        raise InvalidRequest(f"{record_id!r} is no record id; they begin with rec_.", param="id")
    return f"/v1/records/{quote(record_id, safe='')}"
