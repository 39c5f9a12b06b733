"""Streams: frames cut anywhere, errors inside, ends that are none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx2
import pytest
from client_standin import BASE, ENVELOPE, KEY, USAGE, Server, call, error, models, reply

from transom import AsyncClient, Client
from transom.client import ServerUnreachable, UnexpectedReply
from transom.errors import EngineUnavailable, GenerationFailed, Unauthenticated

pytestmark = pytest.mark.anyio


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that arrives in these pieces, and may break after them."""

    def __init__(self, pieces: Sequence[bytes], breaks: Exception | None = None) -> None:
        self.pieces, self.breaks, self.closed = pieces, breaks, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.breaks is not None:
            raise self.breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def streaming(*pieces: bytes, breaks: Exception | None = None) -> httpx2.Response:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return httpx2.Response(200, headers=headers, stream=Pieces(pieces, breaks))


def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
    data = ENVELOPE | {"object": "chat.completion.chunk", "choices": choices, "usage": None} | more
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def said(content: str, **more: Any) -> bytes:
    return frame(
        [{"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None} | more]
    )


ANSWER = (
    frame([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    + said("Bl")
    + said("ü € 🟦")
    + frame([{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": None}])
    + frame([], usage=USAGE)
)
DONE = b"data: [DONE]\n\n"
CHAT = "POST /v1/chat/completions"


async def streamed(kind: Any, response: httpx2.Response) -> list[Any]:
    return await call(kind, Server({CHAT: response}), "stream_chat", "Colour?", model="smol")


async def test_chunks_arrive_typed_with_the_record_in_each(kind) -> None:
    server = Server({CHAT: streaming(ANSWER + DONE)})
    chunks = await call(kind, server, "stream_chat", "Colour?", model="smol", seed=3)
    assert server.asked["stream"] is True
    assert server.asked["stream_options"] == {"include_usage": True}
    assert "".join(chunk.text for chunk in chunks) == "Blü € 🟦"
    assert {chunk.record for chunk in chunks} == {"rec_1"}
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 2


async def test_a_stream_cut_at_any_byte_reads_the_same(kind) -> None:
    whole = ANSWER + DONE
    expected = await streamed(kind, streaming(whole))
    for cut in range(1, len(whole)):
        assert await streamed(kind, streaming(whole[:cut], whole[cut:])) == expected


async def test_a_stream_that_comes_byte_by_byte_reads_the_same(kind) -> None:
    whole = (ANSWER + DONE).replace(b"\n", b"\r\n")
    chunks = await streamed(kind, streaming(*(bytes([byte]) for byte in whole)))
    assert "".join(chunk.text for chunk in chunks) == "Blü € 🟦"


async def test_comments_that_keep_a_stream_alive_are_passed_over(kind) -> None:
    assert len(await streamed(kind, streaming(b": ping\n\n" + ANSWER + b": ping\n\n" + DONE))) == 5


async def test_a_chunk_larger_than_any_buffer_is_read(kind) -> None:
    chunks = await streamed(kind, streaming(said("x" * 3_000_000) + DONE))
    assert len(chunks[0].text) == 3_000_000


async def test_text_of_other_choices_is_not_mixed_into_the_first(kind) -> None:
    both = frame([{"index": 1, "delta": {"content": "B"}}, {"index": 0, "delta": {"content": "A"}}])
    (chunk,) = await streamed(kind, streaming(both + DONE))
    assert chunk.text == "A"
    assert [choice.text for choice in chunk.choices] == ["B", "A"]


async def test_completions_stream_too_and_find_their_model(kind) -> None:
    piece = {"index": 0, "text": " blue", "logprobs": None, "finish_reason": None}
    server = Server(
        {"GET /v1/models": reply(models("smol")), "POST /v1/completions": streaming(frame([piece]) + DONE)}
    )
    chunks = await call(kind, server, "stream_complete", "The sky is")
    assert [chunk.text for chunk in chunks] == [" blue"]
    assert server.asked["model"] == "smol"


def failing(code: str, message: str) -> bytes:
    return b"event: error\ndata: " + json.dumps(error(500, message, code)).encode() + b"\n\n"


FAILURES = [("generation_failed", GenerationFailed), ("engine_unavailable", EngineUnavailable)]


@pytest.mark.parametrize(("code", "expected"), FAILURES)
async def test_an_error_inside_a_stream_is_raised(kind, code, expected) -> None:
    with pytest.raises(expected, match="It died"):
        await streamed(kind, streaming(said("Bl") + failing(code, "It died.") + DONE))


async def test_what_came_before_an_error_is_not_lost() -> None:
    server = Server({CHAT: streaming(said("Bl") + failing("generation_failed", "It died.") + DONE)})
    with Client(BASE, KEY, transport=httpx2.MockTransport(server)) as client:
        chunks = client.stream_chat("x", model="smol")
        assert next(chunks).text == "Bl"
        with pytest.raises(GenerationFailed):
            next(chunks)


async def test_a_stream_without_its_end_is_not_taken_for_a_whole_one(kind) -> None:
    with pytest.raises(ServerUnreachable, match="cut short"):
        await streamed(kind, streaming(ANSWER))


async def test_a_connection_that_breaks_inside_a_stream_is_unreachable(kind) -> None:
    with pytest.raises(ServerUnreachable, match="broke"):
        await streamed(kind, streaming(ANSWER, breaks=httpx2.ReadError("reset")))


async def test_a_refused_stream_raises_as_a_refused_request_does(kind) -> None:
    with pytest.raises(Unauthenticated, match="Unknown key"):
        await streamed(kind, reply(error(401, "Unknown key.", "invalid_api_key"), 401))


async def test_a_page_in_the_place_of_a_stream_is_unexpected(kind) -> None:
    with pytest.raises(UnexpectedReply, match="stream of events"):
        await streamed(kind, httpx2.Response(200, html="<p>hello</p>"))


async def test_a_chunk_that_is_no_json_is_unexpected(kind) -> None:
    with pytest.raises(UnexpectedReply):
        await streamed(kind, streaming(b"data: {\n\n"))


async def test_leaving_a_stream_early_closes_the_connection() -> None:
    body = Pieces([ANSWER + DONE])
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, stream=body))
    with Client(BASE, KEY, transport=transport) as client:
        chunks = client.stream_chat("x", model="smol")
        next(chunks)
        chunks.close()
        assert body.closed
    body.closed = False
    async with AsyncClient(BASE, KEY, transport=transport) as waiting:
        later = waiting.stream_chat("x", model="smol")
        await anext(later)
        await later.aclose()
        assert body.closed
