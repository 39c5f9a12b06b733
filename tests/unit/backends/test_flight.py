"""Sequences whose tokens are known, seen from the server: several tokens arrive at once, as one text."""

from __future__ import annotations

import pytest

from tests.fakes import make_root
from transom.backends.activity import Latencies
from transom.backends.flight import Flight
from transom.backends.tokenizer import LocalTokenizer
from transom.engine.messages import Output
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob, Verdict

pytestmark = pytest.mark.anyio

TEXT = "The light comes through the window"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return LocalTokenizer(make_root(tmp_path_factory.mktemp("root")))


def flight_of(tokenizer, ids, **sampling) -> Flight:
    params = SamplingParams(**{"seed": 0, "max_tokens": len(ids)} | sampling)
    request = SequenceRequest(sequence_id="a", prompt_token_ids=(5, 6), sampling=params, forced=tuple(ids))
    return Flight(request, tokenizer, Latencies())


def judged(ids) -> list[TokenLogprob]:
    return [TokenLogprob(i, -1.0, 1, verdict=Verdict(i, 0.0)) for i in ids]


async def heard(flight, ids, size, finish="length"):
    """Its deltas, up to the one that ends it."""
    pieces = [judged(ids[start : start + size]) for start in range(0, len(ids), size)]
    for number, piece in enumerate(pieces, 1):
        flight.receive(Output("a", tokens=piece, finish_reason=finish if number == len(pieces) else None))
    deltas = [await flight.news()]
    while deltas[-1].finish_reason is None:
        deltas.append(await flight.news())
    return deltas


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_known_tokens_are_the_text_that_generating_them_gives(tokenizer, size):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    deltas = await heard(flight_of(tokenizer, ids), ids, size)
    assert "".join(delta.text for delta in deltas) == TEXT
    assert [token.token_id for delta in deltas for token in delta.tokens] == ids
    assert [text for delta in deltas for text in delta.token_texts] == [tokenizer.token_text(i) for i in ids]
    assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("stop", ["come", " through", "window", "gh"])
async def test_nothing_comes_after_a_stop_string_however_the_tokens_arrive(tokenizer, size, stop):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    expected = await heard(flight_of(tokenizer, ids, stop=(stop,)), ids, 1, "abort")
    deltas = await heard(flight_of(tokenizer, ids, stop=(stop,)), ids, size, "abort")
    assert "".join(delta.text for delta in deltas) == TEXT[: TEXT.index(stop)]
    tokens, wanted = ([t for delta in found for t in delta.tokens] for found in (deltas, expected))
    assert tokens == wanted
    assert tokenizer.decode([token.token_id for token in tokens[:-1]]).find(stop) == -1
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == ("stop", stop)


async def test_a_new_engine_is_told_which_tokens_were_judged(tokenizer):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    flight = flight_of(tokenizer, ids)
    assert flight.submission().generated == ()
    flight.receive(Output("a", tokens=judged(ids[:3])))
    assert flight.submission().generated == tuple(ids[:3])
    assert flight.submission().request.forced == tuple(ids)


async def test_what_is_judged_is_no_latency_of_a_token(tokenizer):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    flight = flight_of(tokenizer, ids)
    await heard(flight, ids, 2)
    seen = flight._latencies
    assert [each.cumulative[-1] for each in (seen.first_token, seen.between_tokens, seen.whole)] == [0, 0, 0]
