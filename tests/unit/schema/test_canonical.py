"""The quick way to canonical bytes and the careful one agree, to the byte and to the refusal."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from datetime import UTC, date, datetime
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from uuid import UUID

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transom.schema import canonical
from transom.schema.canonical import canonical_bytes

MOST = 2**53 - 1

TRICKY = [
    *(chr(code) for code in range(0x20)),
    "\x7f\x80\x9f\xa0\xad",
    '"\\/',
    "\u2028\u2029\ufeff\ufffd\ufffe\uffff",
    "\U00010000\U0001f600\U0010ffff",
    "e\u0301 \xe9 \u212b \xc5",  # nothing is normalized
    "\ud7ff\ue000",
]

texts = st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(TRICKY)
ascii_texts = st.text(st.characters(max_codepoint=0x7F))
integers = st.integers(-MOST, MOST) | st.sampled_from([0, -1, MOST, -MOST])


def values(keys):
    return st.recursive(
        st.none() | st.booleans() | integers | texts,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=5)
        ),
        max_leaves=15,
    )


@settings(max_examples=400)
@given(values(ascii_texts))
@example({"a": TRICKY, "A": 1, "": 2, "\x7f": 3, "\x00": 4, "\n": 5, "aa": 6})
def test_the_quick_way_spells_as_rfc8785_does(value):
    assert canonical._is_plain(value)
    assert canonical_bytes(value) == rfc8785.dumps(value)


@settings(max_examples=400)
@given(values(texts))
@example({"\U0001f600": 1, "\uffff": 2})  # by code points the other way round than by UTF-16
@example({"\xe9": 1, "z": 2})
def test_keys_that_are_not_ascii_are_sorted_by_utf16(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("text", TRICKY, ids=ascii)
def test_tricky_text_is_spelled_alike_as_a_value_and_as_a_key(text):
    for value in (text, [text], {"k": text}, {text: 1}):
        assert canonical_bytes(value) == rfc8785.dumps(value)
        assert json.loads(canonical_bytes(value)) == value


class Colour(StrEnum):
    RED = "red"


class Plain(Enum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


MOMENT = datetime(2026, 1, 31, tzinfo=UTC)

REFUSED = [
    1.0,
    float("nan"),
    [0.5],
    {"a": {"b": (1, 2.0)}},
    MOST + 1,
    -MOST - 1,
    [2**64],
    10**400,
    "\ud800",
    {"k": "\udc00x"},
    {"\ud800": 1},
    {1: 2},
    {None: 1},
    {("a",): 1},
    MOMENT,
    {"at": date(2026, 1, 31)},
    [UUID(int=0)],
    Plain.RED,
    {1, 2},
    b"bytes",
    pytest.param(object(), id="object"),
]


@pytest.mark.parametrize("value", REFUSED, ids=repr)
@pytest.mark.parametrize("quick", [True, False])
def test_what_canonical_json_cannot_hold_is_refused_either_way(value, quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(canonical, "orjson", None)
    with pytest.raises(ValueError, match=r"."):
        canonical_bytes(value)


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        {Colour.RED: Colour.RED},
        Text("x"),
        {Text("x"): [Text("y")]},
        OrderedDict(b=1, a=2),
        [Number.ONE, True],
    ],
    ids=repr,
)
def test_what_is_nearly_json_goes_the_careful_way(value):
    assert not canonical._is_plain([value])
    assert canonical_bytes([value]) == rfc8785.dumps([value])


@pytest.mark.parametrize("value", [deque([1]), MappingProxyType({"a": 1})], ids=repr)
def test_what_only_looks_like_json_is_treated_as_the_careful_way_does(value, monkeypatch):
    def outcome():
        try:
            return canonical_bytes(value)
        except ValueError as error:
            return str(error)

    here = outcome()
    monkeypatch.setattr(canonical, "orjson", None)
    assert outcome() == here


@given(values(texts))
def test_an_install_without_the_quick_library_spells_the_same(value):
    quick = canonical_bytes(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "orjson", None)
        assert canonical_bytes(value) == quick
