"""What is wrong with a plan or a run is refused once, at the very field, with what to do."""

from __future__ import annotations

import re

import pytest
from plan_breaking import GRAD, LENS, READ, ZERO, assert_refused, changed, findings
from plan_strategies import ARTIFACT, small_plan

from transom.schema.plan import Plan


@pytest.mark.parametrize(
    ("field", "value", "below", "message"),
    [
        ("model", ..., (), "required"),
        ("model", "", (), "at least 1"),
        ("model", 5, (), "valid string"),
        ("seed", "0", (), "valid integer"),
        ("seed", True, (), "valid integer"),
        ("seed", 2**63, (), "less than or equal"),
        ("seed", 10**400, (), ""),
        ("runs", {}, (), "at least 1"),
        ("return", [], (), "at least 1"),
        ("return", "clean.resid", (), "valid list"),
        ("return", ["clean.resid", "clean.resid"], (1,), "named before"),
        ("return", [ARTIFACT], (0,), "there already"),
        ("return", [{"inline": [1]}], (0,), "valid string"),
        ("format", "pickle", (), "'safetensors', 'json' or 'parts'"),
        ("returns", ["clean.resid"], (), "not permitted"),
        ("code", "import os", (), "not permitted"),
        ("derive", {"d": "clean.resid"}, ("d",), "must be an object with one of sub"),
        ("sweep", {}, (), "at least one of layer, pos and head"),
        ("sweep", {"layer": []}, ("layer",), "at least 1"),
        ("sweep", {"layer": "some"}, ("layer",), "'all'"),
        ("sweep", {"layer": 5}, ("layer",), 'must be "all" or a list'),
        ("sweep", {"layer": ["5"]}, ("layer", 0), "valid integer"),
        ("sweep", {"layer": [1.0]}, ("layer", 0), "valid integer"),
        ("sweep", {"layer": [True]}, ("layer", 0), "valid integer"),
        ("sweep", {"layer": [-1]}, ("layer", 0), "greater than or equal to 0"),
        ("sweep", {"layer": [10_000]}, ("layer", 0), "less than or equal to 9999"),
        ("sweep", {"layer": [3, 4, 3]}, ("layer",), "names 3 twice"),
        ("sweep", {"pos": list(range(65)), "layer": list(range(64))}, (), "4160 cells or more"),
        ("sweep", {"unit": [1]}, ("unit",), "not permitted"),
    ],
)
def test_a_plan_is_refused(field, value, below, message):
    assert_refused((field,), value, (field, *below), message)


BAD_NAMES = [
    "",
    "A",
    "1a",
    "_a",
    "a-b",
    "a.b",
    "a b",
    "é",
    "a" * 33,
    "a\n",
    "../a",
    "a/../b",
    "..",
    "a\x00",
    "derive",
    "artifact",
    "inline",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("runs",), {"input": "x"}),
        (("runs", "clean", "read"), {"at": "final_norm"}),
        (("derive",), {"normalize": "clean.resid"}),
        (("runs", "slope", "grad", "wrt"), {"at": "embeddings"}),
    ],
    ids=["run", "read", "derived", "gradient"],
)
def test_a_name_is_refused(path, value, name):
    assert_refused((*path, name), value, (*path, name, "[key]"), "")


@pytest.mark.parametrize(
    ("value", "below", "message"),
    [
        (5, (), "must be text, or an object with one of messages"),
        ([1, 2], (), "must be text, or an object with one of messages"),
        ({}, (), "must be text, or an object with one of messages"),
        ({"token_ids": []}, ("token_ids",), "at least 1"),
        ({"token_ids": [-1]}, ("token_ids", 0), "greater than or equal to 0"),
        ({"token_ids": [2**31]}, ("token_ids", 0), "less than 2147483648"),
        ({"token_ids": ["1"]}, ("token_ids", 0), "valid integer"),
        ({"token_ids": [1.0]}, ("token_ids", 0), "valid integer"),
        ({"token_ids": [1], "prompt": "x"}, ("prompt",), "not permitted"),
        ({"prompt": "x", "add_special_tokens": 1}, ("add_special_tokens",), "valid boolean"),
        ({"messages": []}, ("messages",), "at least 1"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, ("messages", 0, "role"), "'system'"),
    ],
)
def test_an_input_is_refused(value, below, message):
    assert_refused(("runs", "clean", "input"), value, ("runs", "clean", "input", *below), message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_tokens", 0, "greater than or equal to 1"),
        ("max_tokens", ..., "required"),
        ("temperature", -1, "greater than or equal to 0"),
        ("temperature", float("nan"), "finite"),
        ("temperature", 10**400, ""),
        ("top_p", 0, "greater than 0"),
        ("logprobs", 21, "less than or equal to 20"),
        ("stop", ["x"], "not permitted"),
    ],
)
def test_a_generation_is_refused(field, value, message):
    path = ("runs", "patched", "generate", field)
    assert_refused(path, value, path, message)


@pytest.mark.parametrize(
    ("value", "below", "message"),
    [
        ({}, (), "one of sub, add"),
        ([], (), "one of sub, add"),
        ({"div": ["clean.resid", "clean.resid"]}, (), "one of sub, add"),
        ({"sub": ["clean.resid"]}, ("sub",), "a list of two: references"),
        ({"sub": ["clean.resid", 1]}, ("sub", 1), "must be a reference"),
        ({"add": []}, ("add",), "at least 1"),
        ({"add": ["clean.resid"], "sub": ["clean.resid"] * 2}, ("add",), "not permitted"),
        ({"scale": ["clean.resid", "2"]}, ("scale", 1), "valid number"),
        ({"scale": ["clean.resid", float("nan")]}, ("scale", 1), "finite number"),
        ({"scale": [2, 2]}, ("scale", 0), "must be a reference"),
        ({"mean": 5}, ("mean",), "a reference, or a list of references"),
        ({"mean": ["clean.resid"], "axis": "layer"}, ("axis",), "not taken with a list"),
        ({"mean": "clean.resid", "axis": 0}, ("axis",), "valid string"),
        ({"stack": "clean.resid"}, ("stack",), "valid list"),
        ({"topk": "clean.resid"}, ("k",), "required"),
        ({"topk": "clean.resid", "k": 0}, ("k",), "equal to 1"),
        ({"normalize": {"inline": []}}, ("normalize", "inline"), "holds no numbers"),
    ],
    ids=str,
)
def test_a_derived_value_is_refused(value, below, message):
    assert_refused(("derive", "d"), value, ("derive", "d", *below), message)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "clean",
        "clean.",
        ".resid",
        "clean..resid",
        "clean.resid.a.b",
        "Clean.resid",
        "clean.resid ",
        "clean.resid\n",
        "../clean.resid",
        "clean./etc/passwd",
        "derive",
        "derive.",
        "derive.derive",
        "inline.resid",
        "x" * 300,
        "artifact:",
        "artifact:" + "A" * 64,
        "artifact:" + "a" * 63,
        "artifact:" + "a" * 65,
        ARTIFACT + "#",
        ARTIFACT + "#../x",
        ARTIFACT + "#/etc/passwd",
        ARTIFACT + "#a..b",
        ARTIFACT + "#a\n",
        ARTIFACT + "#" + "a" * 129,
        "artifact:../../" + "a" * 64,
        "sha256:" + "a" * 64,
    ],
)
def test_a_reference_is_refused(ref):
    assert_refused((*LENS, "reduce"), {"project": ref}, (*LENS, "reduce", "project"), "")


@pytest.mark.parametrize(
    ("path", "many", "most"),
    [
        (("runs",), {f"r{i}": {"input": "x"} for i in range(257)}, 256),
        (("runs", "clean", "read"), {f"r{i}": {"at": "final_norm"} for i in range(65)}, 64),
        (("runs", "clean", "write"), [{"at": "z.1", "op": "zero"}] * 65, 64),
        (("derive",), {f"d{i}": {"normalize": "clean.resid"} for i in range(257)}, 256),
    ],
)
def test_more_than_the_most_is_refused(path, many, most):
    assert_refused(path, many, path, f"at most {most}")


@pytest.mark.parametrize("group", ["read", "wrt"])
@pytest.mark.parametrize("name", ["tokens", "logprobs"])
def test_what_a_generating_run_offers_is_no_name_of_something_else(group, name):
    path = ("runs", "patched", "read") if group == "read" else ("runs", "patched", "grad", "wrt")
    content = small_plan()
    site = {"at": "embeddings"}
    content["runs"]["patched"]["grad"] = {"of": {"logprob": 1}, "wrt": {"e": site}}
    holder = content["runs"]["patched"]["read" if group == "read" else "grad"]
    (holder if group == "read" else holder["wrt"])[name] = site
    (error,) = findings(content)
    assert error["loc"] == (*path, name)
    assert "choose another name" in error["msg"]


def test_a_gradient_and_a_read_of_one_run_have_two_names():
    (error,) = findings(changed(("runs", "slope", "read"), {"e": {"at": "embeddings"}}))
    assert error["loc"] == (*GRAD, "wrt", "e")
    assert "name of a read" in error["msg"]


def test_null_means_absent_everywhere():
    content = small_plan()
    plan = Plan.model_validate(content)
    content["runs"]["clean"] |= {"generate": None, "grad": None, "write": None}
    content["runs"]["patched"]["write"][2] |= {"value": None, "scale": None, "unit": None}
    content["runs"]["clean"]["read"]["lens"] |= {"pos": None, "head": None}
    content["runs"]["clean"]["read"]["lens"]["reduce"]["unembed"]["targets"] = None
    content["seed"] = None
    assert Plan.model_validate(content) == plan


def test_no_depth_exhausts_the_stack():
    deep = "x"
    for _ in range(100_000):
        deep = [deep]
    for path in (("model",), ("runs",), (*READ, "pos"), (*ZERO, "head"), ("return",), ("derive", "d")):
        assert findings(changed(path, deep))


def test_the_schema_is_readable():
    schema = Plan.model_json_schema()
    assert set(schema["properties"]) >= {"model", "runs", "return", "sweep"}
    assert "returns" not in schema["properties"]
    assert {"Run", "Read", "Write", "Grad", "Sweep", "Inline", "Unembed"} <= set(schema["$defs"])
    for name, part in schema["$defs"].items():
        assert part.get("description"), name
    assert not re.search(r"validator|wrap|pydantic", str(schema), re.IGNORECASE)
