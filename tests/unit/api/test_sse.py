"""Frames: an event made from what is around its text is that event, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.api import sse

AROUND = [
    {"choices": [{"index": 0, "delta": {"content": sse.TEXT}, "logprobs": None}], "usage": None},
    {"model": 'a"text"\\', "choices": [{"text": sse.TEXT, "index": 3}]},
    {"text": sse.TEXT},
]


def put(data, text):
    return json.loads(json.dumps(data).replace(json.dumps(sse.TEXT), json.dumps(text)))


@pytest.mark.parametrize("data", AROUND)
@given(text=st.text())
def test_any_text_is_framed_as_an_event_is_written(data, text):
    assert sse.Frame(data).event(text) == sse.event(put(data, text))


@pytest.mark.parametrize(
    "text", ["", "\n\ndata: [DONE]\n\n", sse.TEXT, '"', "\\", "\u2028", "a\0b", "\U0001f511"]
)
def test_text_that_looks_like_framing_is_none(text):
    framed = sse.Frame(AROUND[0]).event(text)
    assert framed == sse.event(put(AROUND[0], text))
    assert framed.count(b"\n") == 2


def test_text_that_is_no_unicode_is_an_error_as_it_is_in_an_event():
    with pytest.raises(TypeError):
        sse.Frame(AROUND[0]).event("\ud800")
