"""A server of canned replies, and both clients driven through one door."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from transom import AsyncClient, Client
from transom.records.statement import draft
from transom.schema.canonical import sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.record import Answer, Envelope, RecordView

BASE = "http://transom.test"
KEY = "tr_key"
DEPLOYMENT = "sha256:" + "ab" * 32
STAMP = {"record": "rec_1", "seed": 2**63 - 1, "deployment": DEPLOYMENT}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ENVELOPE = {"id": "rec_1", "created": 7, "model": "smol", "system_fingerprint": DEPLOYMENT, "transom": STAMP}


@dataclass
class Server:
    """Answers `METHOD /path` with what was laid out for it, and remembers what was asked."""

    replies: dict[str, httpx2.Response | list[httpx2.Response]] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self.replies[f"{request.method} {request.url.path}"]
        return _fresh(reply.pop(0) if isinstance(reply, list) else reply)

    @property
    def asked(self) -> Any:
        """The last request's body."""
        return json.loads(self.requests[-1].content)


def _fresh(response: httpx2.Response) -> httpx2.Response:
    """A copy: a response can be received only once. One that streams is laid out once and taken as it is."""
    try:
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)
    except httpx2.ResponseNotRead:
        return response


def reply(body: Any, status: int = 200, **headers: str) -> httpx2.Response:
    return httpx2.Response(
        status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def error(status: int, message: str = "No.", code: str = "x", **more: Any) -> dict[str, Any]:
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
    detail = {"message": message, "type": kinds.get(status, "server_error"), "param": None, "code": code}
    return {"error": detail | {"layer": "api"} | more}


async def call(kind: type[Client | AsyncClient], server: Any, method: str, *args: Any, **options: Any) -> Any:
    """Call one method of either client; a stream or an iterator comes back as a list."""
    if kind is Client:
        with Client(BASE, KEY, transport=httpx2.MockTransport(server)) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if isinstance(result, Iterator) else result
    async with AsyncClient(BASE, KEY, transport=httpx2.MockTransport(server)) as waiting:
        result = getattr(waiting, method)(*args, **options)
        if isinstance(result, AsyncIterator):
            return [item async for item in result]
        assert inspect.isawaitable(result)
        return await result


def completion(**more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": " blue", "finish_reason": "stop", "stop_reason": None, "logprobs": None}
    return ENVELOPE | {"object": "text_completion", "choices": [choice | more], "usage": USAGE}


def chat(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Blue.", "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "length",
        "stop_reason": None,
        "logprobs": None,
    }
    return ENVELOPE | {"object": "chat.completion", "choices": [choice | more], "usage": USAGE}


def models(*names: str) -> dict[str, Any]:
    card = {"object": "model", "created": 7, "owned_by": "operator", "digest": DEPLOYMENT}
    rest = {"deployment": {"policy": {"max_model_len": 8192}}, "max_model_len": 8192}
    return {"object": "list", "data": [card | rest | {"id": name} for name in names]}


def record_view() -> RecordView:
    """A real record, as the server makes them."""
    from datetime import UTC, datetime

    moment = datetime(2026, 1, 31, 9, 5, tzinfo=UTC)
    result = SequenceResult(tokens=[TokenLogprob(5, -0.5, 1)], text="Blue.", finish_reason="stop")
    answer = Answer(
        record_id="rec_1",
        project_id="local",
        key_id=None,
        model="smol",
        deployment=DEPLOYMENT,
        endpoint="/v1/chat/completions",
        received=moment,
        answered=moment,
        status="complete",
        request={"model": "smol", "messages": [{"role": "user", "content": "Colour?"}], "seed": 3},
        messages=[{"role": "user", "content": "Colour?"}],
        prompts=[(1, 2)],
        sampling=SamplingParams(seed=3, max_tokens=9),
        seed_source="explicit",
        n=1,
        sequences=[(0, 0, result)],
    )
    made = draft(answer)
    payload = made.statement(4)
    import base64

    return RecordView(
        id="rec_1",
        created="2026-01-31T09:05:00.000000Z",
        project="local",
        model="smol",
        deployment=DEPLOYMENT,
        endpoint="/v1/chat/completions",
        status="complete",
        sequence=4,
        digest=sha256(payload),
        envelope=Envelope(payload=base64.b64encode(payload).decode()),
        statement=json.loads(payload),
        openings=json.loads(made.openings),
    )
