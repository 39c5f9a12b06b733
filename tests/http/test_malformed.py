"""Bodies that are wrong, one way each: a 4xx that names the field, and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.door import HELLO, MODEL

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"model": MODEL, "prompt": "hi", "max_tokens": 1},
    CHAT: {"model": MODEL, "messages": HELLO, "max_tokens": 1},
    "/tokenize": {"model": MODEL, "prompt": "hi"},
    "/detokenize": {"model": MODEL, "tokens": [5]},
}
HUGE = 10**40

# Field → values that it refuses, naming itself.
BOTH: dict[str, list[Any]] = {
    "model": ["nobody", 5, True, [MODEL], {}, "", "\0", "m" * 5000],
    "temperature": ["1", -0.1, 10.5, True, [1], {}, HUGE, -HUGE],
    "top_p": [0, 1.01, "0.5", True, -1],
    "top_k": [-2, 1.5, "3", True, HUGE],
    "min_p": [-0.1, 1.1, "0", False],
    "frequency_penalty": [-2.1, 2.1, "0", True],
    "presence_penalty": [-2.1, 2.1, "0", []],
    "logit_bias": ["5", [5], 5, True],
    "n": [0, -1, 129, 1.5, "1", True, HUGE],
    "seed": ["1", 1.5, True, 2**63, -(2**63) - 1, HUGE, [1]],
    "stop": [5, True, {}],
    "stop_token_ids": [5, "5", {}, [0] * 65],
    "ignore_eos": ["true", 1, 0],
    "stream": ["true", 1, 0, []],
    "stream_options": [True, [], "usage", {}, {"include_usage": True}],
    "return_token_ids": [1, "yes"],
    "prompt_logprobs": [-1, 21, True, "1", 1.5],
    "service_tier": ["priority", "scale", "Flex", "", 5, True, ["flex"], {}],
    "user": [5, ["me"], "u" * 257],
    "max_tokens": [-1, 1.5, "16", True, HUGE, 2**31, 100_000],
}
COMPLETION_ONLY: dict[str, list[Any]] = {
    "prompt": [
        5,
        5.0,
        True,
        {},
        [],
        [[]],
        ["hi", 5],
        [5, "hi"],
        [[5], 5],
        [[5], "hi"],
        [[5], []],
        [[[5]]],
        [5, True],
        [5.0],
        [-1],
        [None],
        [HUGE],
        [384],
        [[5], [384]],
        [2**31 - 1],
        ["hi"] * 257,
        "the light " * 400,
        [5] * 257,
    ],
    "logprobs": [-1, 21, True, False, "1", 1.5],
    "echo": [1, "true"],
    "best_of": [0, 129, True, "2"],
    "add_special_tokens": [1, "no"],
    "suffix": ["after", "", 5],
}
CHAT_ONLY: dict[str, list[Any]] = {
    "messages": [[], "hi", {}, 5, [{"role": "user", "content": "the light " * 400}]],
    "logprobs": [1, 5, "true"],
    "top_logprobs": [-1, 21, True, "1", 1],
    "max_completion_tokens": [-1, "16", True, 1.5, HUGE, 100_000],
    "response_format": [{"type": "json_object"}, 5],
    "tools": [[], [{"type": "function"}]],
    "tool_choice": ["auto"],
    "parallel_tool_calls": [True],
    "functions": [[]],
    "function_call": ["none"],
    "modalities": [["text"]],
    "audio": [{}],
    "prediction": [{}],
    "reasoning_effort": ["low"],
    "store": [False],
    "metadata": [{}],
}
TOKENIZE: dict[str, list[Any]] = {
    "prompt": [5, True, ["hi"], {}],
    "add_special_tokens": [1, "no"],
    "return_token_strs": [1, "no"],
    "model": ["nobody", 5, True],
    "chat_template": ["{{ messages }}"],
}
DETOKENIZE: dict[str, list[Any]] = {
    "tokens": [5, "5", {}, True],
    "model": ["nobody", 5],
}


def _fields() -> Iterator[tuple[str, dict[str, Any], str]]:
    """(path, body, param) where one value is wrong and the param is its field."""
    for path, table in [
        (COMPLETIONS, BOTH | COMPLETION_ONLY),
        (CHAT, BOTH | CHAT_ONLY),
        ("/tokenize", TOKENIZE),
        ("/detokenize", DETOKENIZE),
    ]:
        for field, values in table.items():
            for value in values:
                body = GOOD[path] | {field: value}
                if field == "max_completion_tokens":
                    del body["max_tokens"]
                yield path, body, field


# (path, what is changed in a good body, param)
DEEPER: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {"unheard_of": 1}, "unheard_of"),
    (CHAT, {"unheard_of": 1}, "unheard_of"),
    ("/tokenize", {"unheard_of": 1}, "unheard_of"),
    ("/detokenize", {"unheard_of": 1}, "unheard_of"),
    (COMPLETIONS, {"messages": HELLO}, "messages"),
    (CHAT, {"prompt": "hi"}, "prompt"),
    (COMPLETIONS, {"tools": []}, "tools"),
    (COMPLETIONS, {"max_completion_tokens": 5}, "max_completion_tokens"),
    (CHAT, {"best_of": 2}, "best_of"),
    (CHAT, {"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
    (CHAT, {"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
    (COMPLETIONS, {"n": 3, "best_of": 2}, "best_of"),
    (COMPLETIONS, {"best_of": 2, "stream": True}, "best_of"),
    (COMPLETIONS, {"prompt": ["hi"] * 5, "n": 128}, "prompt"),
    (COMPLETIONS, {"prompt": None}, "prompt"),
    (CHAT, {"messages": None}, "messages"),
    (COMPLETIONS, {"model": None}, "model"),
    (CHAT, {"model": None}, "model"),
    ("/detokenize", {"tokens": None}, "tokens"),
    (COMPLETIONS, {"stop": ""}, "stop"),
    (COMPLETIONS, {"stop": "s" * 1025}, "stop"),
    (COMPLETIONS, {"stop": ["ok", ""]}, "stop.1"),
    (COMPLETIONS, {"stop": ["ok", 5]}, "stop.1"),
    (COMPLETIONS, {"stop": ["ok", None]}, "stop.1"),
    (COMPLETIONS, {"stop": [str(i) for i in range(65)]}, "stop"),
    (COMPLETIONS, {"stop_token_ids": [5, 384]}, "stop_token_ids.1"),
    (COMPLETIONS, {"stop_token_ids": [-1]}, "stop_token_ids.0"),
    (COMPLETIONS, {"stop_token_ids": [True]}, "stop_token_ids.0"),
    (COMPLETIONS, {"stop_token_ids": ["5"]}, "stop_token_ids.0"),
    (COMPLETIONS, {"stop_token_ids": [HUGE]}, "stop_token_ids.0"),
    (COMPLETIONS, {"logit_bias": {"5": 101}}, "logit_bias.5"),
    (COMPLETIONS, {"logit_bias": {"5": "1"}}, "logit_bias.5"),
    (COMPLETIONS, {"logit_bias": {"5": True}}, "logit_bias.5"),
    (COMPLETIONS, {"logit_bias": {"5": None}}, "logit_bias.5"),
    (COMPLETIONS, {"logit_bias": {"384": 1}}, "logit_bias.384"),
    (COMPLETIONS, {"logit_bias": {"-1": 1}}, "logit_bias.-1"),
    (COMPLETIONS, {"logit_bias": {"the": 1}}, "logit_bias.the"),
    (COMPLETIONS, {"logit_bias": {"": 1}}, "logit_bias."),
    (COMPLETIONS, {"logit_bias": {"\u0665": 1}}, "logit_bias.\u0665"),
    (COMPLETIONS, {"logit_bias": {"5": 1, "05": 2}}, "logit_bias"),
    (COMPLETIONS, {"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    (
        COMPLETIONS,
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        "stream_options.include_usage",
    ),
    (COMPLETIONS, {"stream": True, "stream_options": {"more": 1}}, "stream_options.more"),
    (CHAT, {"messages": ["hi"]}, "messages.0"),
    (CHAT, {"messages": [None]}, "messages.0"),
    (CHAT, {"messages": [{}]}, "messages.0.role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    (CHAT, {"messages": [{"role": "user", "content": {}}]}, "messages.0.content"),
    (CHAT, {"messages": [{"content": "hi"}]}, "messages.0.role"),
    (CHAT, {"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
    (CHAT, {"messages": [{"role": "tool", "content": "hi"}]}, "messages.0.role"),
    (CHAT, {"messages": [{"role": 5, "content": "hi"}]}, "messages.0.role"),
    (CHAT, {"messages": [*HELLO, {"role": "user", "content": "hi", "x": 1}]}, "messages.1.x"),
    (CHAT, {"messages": [{"role": "user", "content": "hi", "name": 5}]}, "messages.0.name"),
    (CHAT, {"messages": [{"role": "user", "content": "hi", "tool_calls": []}]}, "messages.0.tool_calls"),
    (CHAT, {"messages": [{"role": "user", "content": ["hi"]}]}, "messages.0.content.0"),
    (CHAT, {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages.0.content.0.type"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages.0.content.0.text",
    ),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
        "messages.0.content.0.type",
    ),
    # A role that the schema knows and this model's template refuses.
    (CHAT, {"messages": [{"role": "developer", "content": "hi"}]}, "messages"),
    ("/tokenize", {"prompt": None, "messages": [{"role": "developer", "content": "hi"}]}, "messages"),
    ("/tokenize", {"prompt": None}, "prompt"),
    ("/tokenize", {"messages": HELLO}, "messages"),
    ("/tokenize", {"prompt": None, "messages": []}, "messages"),
    ("/tokenize", {"tools": []}, "tools"),
    ("/detokenize", {"tokens": [384]}, "tokens.0"),
    ("/detokenize", {"tokens": [5, -1]}, "tokens.1"),
    ("/detokenize", {"tokens": [5, True]}, "tokens.1"),
    ("/detokenize", {"tokens": [5, "5"]}, "tokens.1"),
    ("/detokenize", {"tokens": [5.0]}, "tokens.0"),
    ("/detokenize", {"tokens": [None]}, "tokens.0"),
    ("/detokenize", {"tokens": [HUGE]}, "tokens.0"),
]

ROWS = [*_fields(), *((path, GOOD[path] | change, param) for path, change, param in DEEPER)]


def _id(row: tuple[str, dict[str, Any], str]) -> str:
    path, body, param = row
    value = json.dumps(body.get(param.partition(".")[0]))
    return f"{path.rpartition('/')[2] if path != CHAT else 'chat'}-{param}-{value[:40]}"


def test_the_table_has_more_than_a_hundred_rows():
    assert len(ROWS) > 100


@pytest.mark.parametrize(("path", "body", "param"), ROWS, ids=map(_id, ROWS))
async def test_a_wrong_field_is_refused_by_its_name(door, path, body, param):
    reply = await door.post(path, body)
    error = reply.json()["error"]
    assert reply.status_code == (404 if error["code"] == "model_not_found" else 400), reply.text
    assert error["param"] == param
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert error["layer"] == "api"
    assert error["message"]


@pytest.mark.parametrize("path", GOOD)
async def test_the_good_bodies_of_the_table_are_answered(door, path):
    assert (await door.post(path, GOOD[path])).status_code == 200


NOT_JSON = {
    "empty": b"",
    "spaces": b"   ",
    "half an object": b'{"model": "fake"',
    "words": b"model=fake",
    "two objects": b"{}{}",
    "trailing comma": b'{"model": "fake",}',
    "single quotes": b"{'model': 'fake'}",
    "NaN": b'{"model": "fake", "prompt": "hi", "temperature": NaN}',
    "Infinity": b'{"model": "fake", "prompt": "hi", "temperature": Infinity}',
    "minus Infinity": b'{"model": "fake", "prompt": "hi", "temperature": -Infinity}',
    "invalid UTF-8": b'{"model": "fake", "prompt": "\xff\xfe"}',
    "overlong UTF-8": b'{"model": "fake", "prompt": "\xc0\x80"}',
    "raw surrogate": b'{"model": "fake", "prompt": "\xed\xa0\x80"}',
    "lone high surrogate": b'{"model": "fake", "prompt": "\\ud800"}',
    "lone low surrogate": b'{"model": "fake", "prompt": "\\udc00"}',
    "two high surrogates": b'{"model": "fake", "prompt": "\\ud800\\ud800"}',
    "surrogate in a key": b'{"model": "fake", "prompt": "hi", "\\ud800": 1}',
    "raw NUL": b'{"model": "fake", "prompt": "\0"}',
    "UTF-16": '{"model": "fake"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "deep arrays": b'{"model": "fake", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 5000 digits": b'{"model": "fake", "prompt": "hi", "seed": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_a_body_that_is_no_json_is_refused_as_such(door, path, content):
    reply = await door.client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["code"] == "invalid_json"
    assert error["message"].startswith("The body is ")


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("content", [b"null", b"5", b'"hi"', b"[]", b"true", b"[{}]"])
async def test_a_body_that_is_no_object_is_refused(door, path, content):
    reply = await door.client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"].startswith("The body")


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
async def test_a_number_beyond_float64_is_refused_by_its_field(door, number):
    content = f'{{"model": "fake", "prompt": "hi", "temperature": {number}}}'
    reply = await door.client.post(COMPLETIONS, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "temperature"


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonl"]
)
async def test_another_content_type_is_415_and_named(door, kind):
    headers = {} if kind is None else {"content-type": kind}
    reply = await door.client.post(COMPLETIONS, content=json.dumps(GOOD[COMPLETIONS]), headers=headers)
    assert reply.status_code == 415, reply.text
    assert reply.json()["error"]["param"] == "content-type"


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_taken_however_its_type_is_spelled(door, kind):
    content = json.dumps(GOOD[COMPLETIONS])
    reply = await door.client.post(COMPLETIONS, content=content, headers={"content-type": kind})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", GOOD)
async def test_a_body_of_more_than_eight_mebibytes_is_413(door, path):
    content = json.dumps(GOOD[path] | {"user": "u" * (8 << 20)}).encode()
    reply = await door.client.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 413, reply.text
    assert reply.json()["error"]["code"] == "payload_too_large"


async def test_a_large_body_of_undeclared_length_is_413_too(door):
    sent = 0

    async def content():
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * (1 << 20)

    headers = {"content-type": "application/json"}
    reply = await door.client.post(COMPLETIONS, content=content(), headers=headers)
    assert reply.status_code == 413
    assert sent < 12


@pytest.mark.parametrize("text", ["\0", "a\0b", "\U0001f600", "\ufffd", "\u202e", "e\u0301", "\r\n"])
async def test_odd_characters_are_text_like_any_other(own_door, text):
    answer = await own_door.complete(prompt=text, stop=["\0\0"], max_tokens=2, echo=True, user=text)
    assert answer["choices"][0]["text"].startswith(text)
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"


async def test_nothing_refused_leaves_a_record(own_door):
    for path, body, _ in ROWS[::25]:
        await own_door.post(path, body)
    assert (await own_door.client.get("/v1/records")).json()["data"] == []
    assert own_door.backend.taken == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("after=nonsense", "after"),
        ("after=" + "a" * 101, "after"),
        ("after=%00", "after"),
        ("after=%FF", "after"),
    ],
)
async def test_a_wrong_query_parameter_is_refused_by_its_name(door, query, param):
    reply = await door.client.get(f"/v1/records?{query}")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("name", ["nobody", "rec_", "rec_" + "0" * 26, "r" * 65, "%00", "%FF", "rec_%F0"])
@pytest.mark.parametrize("form", ["GET /v1/records/{}", "POST /v1/records/{}/replay"])
async def test_an_unknown_record_is_404_and_named(door, form, name):
    method, path = form.format(name).split()
    reply = await door.client.request(method, path)
    assert reply.status_code == 404, reply.text
    assert reply.json()["error"]["param"] == "id"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", COMPLETIONS, 405),
        ("DELETE", CHAT, 405),
        ("PUT", "/tokenize", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/embeddings", 404),
    ],
)
async def test_a_path_or_method_that_is_not_offered_has_openais_error_shape(door, method, path, status):
    reply = await door.client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code", "layer"}
    if status == 405:
        assert reply.headers["allow"]
