"""Replies, from the bytes of a connection to what their client saw."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.determinism import compare_answers
from benchmarks.load.mixture import KINDS, check
from benchmarks.load.outcome import read_stream, read_whole
from benchmarks.load.sse import read_events
from benchmarks.load.wire import Address, Exchange, Reply, encode_request

STREAM = (
    b': a comment\n\ndata: {"n": 1}\n\nevent: error\r\ndata: {"error": 1}\r\n\r\n'
    b"data: two\ndata: lines\n\ndata: [DONE]\n\ndata: cut of"
)
EVENTS = [
    ("message", b'{"n": 1}'),
    ("error", b'{"error": 1}'),
    ("message", b"two\nlines"),
    ("message", b"[DONE]"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_wherever_the_body_is_cut(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    parts = [(float(at), STREAM[at:to]) for at, to in pairwise(edges)]
    assert [(event.kind, event.data) for event in read_events(parts)] == EVENTS


def test_an_event_has_the_moment_of_its_last_byte():
    (event,) = read_events([(1.0, b"data: a\n"), (2.0, b"\n")])
    assert event.at == 2.0


def reply(*chunks: object, status: int = 200, done: bool = True, problem: str | None = None) -> Reply:
    """A stream whose parts came a second after each other."""
    lines = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"] * done
    parts = [(1.0 + at, f"data: {line}\n\n".encode()) for at, line in enumerate(lines)]
    return Reply(0.0, 9.0, status, parts, complete=True, problem=problem)


def chunk(text: str | None, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}


class TestStreams:
    """What is read off a stream."""

    def test_tokens_are_counted_by_usage(self):
        outcome = read_stream(reply(chunk("a"), chunk("b"), chunk("", "length"), USAGE))
        assert (outcome.prompt_tokens, outcome.output_tokens) == (7, 5)

    def test_without_usage_tokens_are_counted_by_events(self):
        assert read_stream(reply(chunk("a"), chunk("b", "length"))).output_tokens == 2

    def test_a_stream_without_done_may_end_with_a_finish_reason_unless_that_is_too_little(self):
        ended = reply(chunk("a"), chunk("", "stop"), done=False)
        assert read_stream(ended).problem is None
        assert read_stream(ended, strict=True).problem == "the stream broke off"

    def test_half_a_character_is_a_token_and_a_bare_ending_is_none(self):
        assert read_stream(reply(chunk(""), chunk("b"), chunk("", "stop"))).output_tokens == 2

    def test_the_opening_of_a_chat_is_no_token(self):
        opening = {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        said = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
        assert read_stream(reply(opening, said)).token_times == (2.0,)

    def test_times_are_those_of_the_tokens(self):
        outcome = read_stream(reply(chunk("a"), chunk("b"), USAGE, chunk("c")))
        assert outcome.first_token_seconds == 1.0
        assert outcome.gaps == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (reply(chunk("a"), done=False), "broke off"),
            (reply(chunk("a"), status=503), "status 503"),
            (reply(chunk("a"), problem="the connection broke"), "broke"),
            (reply({"error": {"message": "no"}}), "has an error"),
        ],
    )
    def test_what_is_wrong_is_said(self, broken, said):
        assert said in (read_stream(broken).problem or "")


def whole(body: object, status: int = 200) -> Reply:
    return Reply(0.0, 1.0, status, [(1.0, json.dumps(body).encode())], complete=True)


def test_a_whole_reply_has_its_usage():
    outcome = read_whole(whole(USAGE))
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.problem) == (7, 5, None)


def test_a_client_misses_a_choice_that_did_not_end():
    (kind,) = [each for each in KINDS if each.name == "several choices"]
    ended = {"choices": [{"finish_reason": "stop"}] * 2, "usage": {}}
    assert check(kind, whole(ended)) == "2 of 3 choices came to an end"


def answer(tokens: list[str], logprobs: list[float]) -> Reply:
    top = [{token: value, "other": value - 1} for token, value in zip(tokens, logprobs, strict=True)]
    given_logprobs = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top}
    return whole({"choices": [{"text": "".join(tokens), "logprobs": given_logprobs}]})


class TestDeterminism:
    """Comparing answers of the same request."""

    def test_equal_answers_are_counted_as_such(self):
        one = answer(["a", "b"], [-0.1, -0.2])
        figures = compare_answers([one, one], [one, one])
        assert (figures["same_tokens"], figures["same_logprobs"], figures["largest_difference"]) == (2, 2, 0)

    def test_the_last_bit_of_a_logprob_counts(self):
        figures = compare_answers([answer(["a"], [-0.1])], [answer(["a"], [-0.10000000000000002])])
        assert (figures["same_tokens"], figures["same_logprobs"]) == (1, 0)
        assert 0 < figures["largest_difference"] < 1e-15

    def test_logprobs_are_compared_as_far_as_the_tokens_agree(self):
        one, other = answer(["a", "b", "c"], [-1.0, -1.0, -1.0]), answer(["a", "x", "c"], [-1.25, -1.0, -9.0])
        figures = compare_answers([one], [other])
        assert (figures["same_tokens"], figures["largest_difference"]) == (0, 0.25)

    def test_a_failed_request_stops_the_comparison(self):
        with pytest.raises(ConnectionError, match="500"):
            compare_answers([whole({}, status=500)], [whole({})])


class FakeTransport:
    """Notes what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.anyio
class TestExchange:
    """The client's side of one request."""

    def open(self, watch=None) -> Exchange:
        client = Exchange(b"request", watch)
        client.connection_made(FakeTransport())  # type: ignore[arg-type]
        return client

    async def test_a_chunked_reply_is_put_together(self):
        client = self.open()
        client.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc")
        client.data_received(b"\r\n2\r\nde\r\n0\r\n\r\n")
        assert client.done.done()
        assert (client.reply.status, client.reply.body, client.reply.problem) == (200, b"abcde", None)
        assert client.transport.aborted  # type: ignore[attr-defined]

    async def test_a_reply_that_ends_early_is_a_problem(self):
        client = self.open()
        client.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        client.connection_lost(None)
        assert client.reply.problem == "the connection was closed early"

    async def test_a_client_can_hang_up(self):
        client = self.open(watch=Exchange.hang_up)
        client.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        assert client.done.done()
        assert client.transport.aborted  # type: ignore[attr-defined]

    async def test_what_is_not_http_is_a_problem(self):
        client = self.open()
        client.data_received(b"hello\r\n\r\n")
        assert "not HTTP" in (client.reply.problem or "")


def test_a_request_has_the_key_and_the_length_of_its_body():
    address = Address.parse("http://127.0.0.1:8600/v1/")
    head, _, body = encode_request(address, "POST", "/completions", {"n": 1}, "k").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer k" in head
    assert f"Content-Length: {len(body)}".encode() in head


def test_an_address_needs_a_host():
    with pytest.raises(ValueError, match="base URL"):
        Address.parse("8600")
