"""What goes wrong, and as which exception it arrives."""

from __future__ import annotations

import httpx2
import pytest
from client_standin import Server, call, error, reply

from transom.client import RateLimited, ServerUnreachable, UnexpectedReply
from transom.errors import (
    EngineBusy,
    EngineError,
    EngineUnavailable,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RequestError,
    TransomError,
    Unauthenticated,
    UnsupportedParameter,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("status", "code", "layer", "expected"),
    [
        (400, "invalid_value", "api", InvalidRequest),
        (400, "unsupported_parameter", "api", UnsupportedParameter),
        (401, "invalid_api_key", "access", Unauthenticated),
        (403, "permission_denied", "access", Forbidden),
        (404, "model_not_found", "api", NotFound),
        (405, "method_not_allowed", "api", RequestError),
        (413, "payload_too_large", "api", PayloadTooLarge),
        (415, "unsupported_media_type", "api", RequestError),
        (429, "rate_limited", "quota", RateLimited),
        (500, "generation_failed", "engine", GenerationFailed),
        (500, "engine_error", "engine", EngineError),
        (500, "internal_error", "api", TransomError),
        (503, "engine_unavailable", "engine", EngineUnavailable),
        (503, "server_overloaded", "engine", EngineBusy),
    ],
)
async def test_a_refusal_becomes_the_exception_that_the_server_raised(
    kind, status, code, layer, expected
) -> None:
    server = Server({"GET /v1/models": reply(error(status, "Not so.", code, layer=layer), status)})
    with pytest.raises(TransomError, match="Not so") as caught:
        await call(kind, server, "models")
    assert type(caught.value) is expected


async def test_the_field_at_fault_and_the_reason_are_kept(kind) -> None:
    body = error(400, "Too long.", "context_length_exceeded", param="messages.0")
    with pytest.raises(InvalidRequest) as caught:
        await call(kind, Server({"GET /v1/models": reply(body, 400)}), "models")
    assert (caught.value.param, caught.value.reason) == ("messages.0", "context_length_exceeded")


@pytest.mark.parametrize(("status", "expected"), [(503, EngineUnavailable), (429, RateLimited)])
@pytest.mark.parametrize(("header", "seconds"), [("17", 17), ("Wed, 21 Oct 2026 07:28:00 GMT", 5), (None, 5)])
async def test_how_long_to_wait_is_taken_from_the_header(kind, status, expected, header, seconds) -> None:
    headers = {} if header is None else {"retry_after": header}
    server = Server({"GET /v1/models": reply(error(status), status, **headers)})
    with pytest.raises(expected) as caught:
        await call(kind, server, "models")
    assert caught.value.retry_after == seconds


async def test_a_failure_on_record_names_its_record(kind) -> None:
    failed = reply(error(500, "It died.", "generation_failed"), 500, x_transom_record="rec_9")
    with pytest.raises(GenerationFailed) as caught:
        await call(kind, Server({"POST /v1/completions": failed}), "complete", "x", model="smol")
    assert caught.value.__notes__ == ["It is on record as rec_9."]


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx2.Response(404, json={"detail": "Not Found"}),
        httpx2.Response(500, json=[1]),
        httpx2.Response(500, json={"error": "text"}),
        httpx2.Response(307, headers={"location": "/elsewhere"}),
        httpx2.Response(200, html="<p>hello</p>"),
        httpx2.Response(200, json={"object": "list"}),
        httpx2.Response(200, content=b"\xff"),
    ],
)
async def test_what_no_transom_server_says_is_unexpected(kind, answer) -> None:
    with pytest.raises(UnexpectedReply, match="Check the address"):
        await call(kind, Server({"GET /v1/models": answer}), "models")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            httpx2.ConnectError("refused"),
            "Nothing answers at http://transom.test. Check that the server runs",
        ),
        (httpx2.ConnectTimeout("slow"), "Nothing answers"),
        (httpx2.ReadTimeout("slow"), "longer than this client waits"),
        (httpx2.ReadError(""), "broke \\(ReadError\\)"),
        (httpx2.RemoteProtocolError("peer closed"), "broke \\(peer closed\\)"),
    ],
)
async def test_a_server_out_of_reach_says_what_to_check(kind, fault, says) -> None:
    def unreachable(request: httpx2.Request) -> httpx2.Response:
        raise fault

    with pytest.raises(ServerUnreachable, match=says):
        await call(kind, unreachable, "models")


async def test_nothing_is_asked_twice(kind) -> None:
    server = Server({"GET /v1/models": reply(error(503), 503, retry_after="0")})
    with pytest.raises(EngineUnavailable):
        await call(kind, server, "models")
    assert len(server.requests) == 1
