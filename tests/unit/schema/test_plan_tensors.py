"""Inline tensors: what is too large, crooked or not finite is refused before anything is made of it."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from plan_strategies import inline, small_plan
from pydantic import ValidationError

from transom.schema.plan import Plan
from transom.schema.plans.tensors import MAX_INLINE_BYTES, Inline

NAN, INFINITY = float("nan"), float("inf")


def b64(raw):
    return base64.b64encode(raw).decode()


def packed(raw, shape=(1,), dtype="float32"):
    return {"dtype": dtype, "shape": list(shape), "b64": raw if isinstance(raw, str) else b64(raw)}


def deep(levels):
    value = 1.0
    for _ in range(levels):
        value = [value]
    return value


REFUSED = {
    "no list": (5, (), "must be a list of numbers"),
    "text": ("AAAA", (), "must be a list of numbers"),
    "empty": ([], (), "holds no numbers"),
    "empty inside": ([[], []], (), "holds no numbers"),
    "nine axes": (deep(9), (), "more than 8 deep"),
    "a million axes": (deep(1_000_000), (), "more than 8 deep"),
    "ragged": ([[1, 2], [3]], (1,), "has length 1 where its siblings have 2"),
    "ragged below": ([[[1], [2]], [[3], [4, 5]]], (1, 1), "has length 2 where its siblings have 1"),
    "mixed": ([[1], 2], (1,), "side by side"),
    "mixed the other way": ([1, [2]], (1,), "side by side"),
    "a text among numbers": ([[1, "2"]], (0, 1), "is no number"),
    "true": ([True], (0,), "is no number"),
    "null": ([[1.0], [None]], (1, 0), "is no number"),
    "NaN": ([[1, NAN]], (0, 1), "is not finite"),
    "infinite": ([-INFINITY], (0,), "is not finite"),
    "infinite in float32": ([1e39], (0,), "is not finite in float32"),
    "an enormous integer": ([10**400], (0,), "is not finite"),
    "too many numbers": ([0] * (MAX_INLINE_BYTES // 4 + 1), (), "holds more than 1048576 bytes"),
    "too many in rows": ([[0] * 1024] * 257, (), "holds more than 1048576 bytes"),
    "unknown dtype": (packed(b"\0" * 8, dtype="float64"), ("dtype",), "'float32', 'bfloat16' or 'float16'"),
    "pickle": (packed(b"", dtype="object"), ("dtype",), "'float32'"),
    "no shape": ({"dtype": "float32", "b64": ""}, ("shape",), "required"),
    "no axes": (packed(b"\0" * 4, ()), ("shape",), "at least 1"),
    "nine lengths": (packed(b"\0" * 4, (1,) * 9), ("shape",), "at most 8"),
    "an axis of none": (packed(b"", (0, 2**30)), ("shape", 0), "greater than or equal to 1"),
    "a negative axis": (packed(b"\0" * 4, (-1,)), ("shape", 0), "greater than or equal to 1"),
    "an axis as text": (packed(b"\0" * 4, ("1",)), ("shape", 0), "valid integer"),
    "an enormous axis": (packed(b"\0" * 4, (10**400,)), ("shape", 0), ""),
    "a giant with little in it": (packed(b"\0" * 4, (2**31 - 1,) * 8), ("b64",), "takes"),
    "too short": (packed(b"\0" * 4, (2,)), ("b64",), "holds 4 bytes, and float32 of this shape takes 8"),
    "too long": (packed(b"\0" * 4, dtype="float16"), ("b64",), "holds 4 bytes, and float16"),
    "no base64": (packed("AAA!"), ("b64",), "no base64"),
    "no padding": (packed("AAAAAA"), ("b64",), "no base64"),
    "line breaks": (packed("AAAA\nAA=="), ("b64",), "no base64"),
    "the other alphabet": (packed("__79_w=="), ("b64",), "no base64"),
    "no ASCII": (packed("ÀÀÀÀ"), ("b64",), "no base64"),
    "a byte too many": (packed(b"\0" * (MAX_INLINE_BYTES + 1)), ("b64",), "holds more than 1048576 bytes"),
    "megabytes": (packed("A" * 3_000_000), ("b64",), "at most"),
    "packed NaN": (packed(np.array([[1, NAN]], "<f4").tobytes(), (1, 2)), ("b64",), "not finite, at [0, 1]"),
    "packed half": (packed(np.array([INFINITY], "<f2").tobytes(), dtype="float16"), ("b64",), "not finite"),
    "packed bfloat16": (packed(b"\x80\x7f", dtype="bfloat16"), ("b64",), "not finite, at [0]"),
    "something beside": (packed(b"\0" * 4) | {"device": "cuda"}, ("device",), "not permitted"),
}


@pytest.mark.parametrize(("value", "loc", "message"), REFUSED.values(), ids=REFUSED)
def test_a_tensor_is_refused_once_and_where_it_is_wrong(value, loc, message):
    with pytest.raises(ValidationError) as refused:
        Inline.model_validate({"inline": value})
    (error,) = refused.value.errors(include_url=False)
    assert error["loc"] == ("inline", *loc)
    assert message in error["msg"]
    assert str(refused.value)


def test_a_plan_holds_eight_mebibytes_of_tensors_and_no_more():
    content = small_plan()
    full = {"inline": packed(b"\0" * MAX_INLINE_BYTES, (MAX_INLINE_BYTES // 4,))}
    content["derive"]["sum"] = {"add": [full] * 7}
    plan = Plan.model_validate(content)
    assert sum(tensor.nbytes for _, tensor in plan.tensors()) == 7 * MAX_INLINE_BYTES + 8
    content["derive"]["sum"] = {"add": [full] * 8}
    with pytest.raises(ValidationError, match="more than 8388608 bytes") as refused:
        Plan.model_validate(content)
    assert refused.value.errors()[0]["loc"] == ("derive", "sum", "add", 7, "inline")


@given(inline)
def test_numbers_keep_their_shape_and_value(content):
    tensor = Inline.model_validate(content)
    found = tensor.array()
    assert found.dtype == np.float32
    assert found.shape == tensor.shape
    assert np.isfinite(found).all()
    if isinstance(content["inline"], list):
        assert tensor.nbytes == found.nbytes
        assert (found == np.array(content["inline"], np.float64).astype(np.float32)).all()


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [("float32", b"\0\0\xc0\xbf"), ("bfloat16", b"\xc0\xbf"), ("float16", b"\0\xbe")],
)
def test_each_dtype_is_read_little_endian(dtype, raw):
    tensor = Inline.model_validate({"inline": packed(raw, dtype=dtype)})
    assert tensor.array().tolist() == [-1.5]
    assert tensor.nbytes == len(raw)


def test_a_tensor_of_the_most_bytes_is_taken_in_either_form():
    for value in (
        packed(b"\0" * MAX_INLINE_BYTES, (2, MAX_INLINE_BYTES // 4), "float16"),
        [[0.5] * 512] * 512,
        deep(8),
    ):
        assert Inline.model_validate({"inline": value}).nbytes <= MAX_INLINE_BYTES
