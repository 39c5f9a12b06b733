"""Plans and points through the client."""

from __future__ import annotations

import gzip
import json

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save

from transom import AsyncClient, Client
from transom.client import Traced, UnexpectedReply
from transom.errors import InvalidRequest

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BODY = save(
    {"a.x": ARRAY, "a.total": np.array(7, np.float32)},
    {"axes.a.x": "layer,pos,unit", "axes.a.total": "", "record": "rec_1"},
)
PLAN = {"model": "m", "runs": {"a": {"input": "x"}}, "return": ["a.x"], "format": "json"}


def serving(body, seen, **headers):
    def answer(request):
        seen.append(request)
        return httpx2.Response(200, content=body, headers=headers)

    return httpx2.MockTransport(answer)


async def call(client, name, *arguments, **named):
    found = getattr(client, name)(*arguments, **named)
    return found if isinstance(client, Client) else await found


@pytest.mark.anyio
async def test_a_plan_comes_back_as_tensors_with_named_axes(kind):
    seen = []
    found = await call(kind("http://server", "", transport=serving(BODY, seen)), "trace", PLAN)
    assert seen[0].url.path == "/v1/traces"
    # Whatever the plan says, what is read is safetensors.
    assert json.loads(seen[0].content) == PLAN | {"format": "safetensors"}
    assert found.record == "rec_1"
    assert set(found) == {"a.x", "a.total"}
    assert len(found) == 2
    np.testing.assert_array_equal(found["a.x"].data, ARRAY)
    assert (found["a.x"].axes, found["a.total"].axes) == (("layer", "pos", "unit"), ())
    np.testing.assert_array_equal(found["a.x"].at(pos=-1, layer=1), ARRAY[1, -1])
    with pytest.raises(KeyError, match="no axis head"):
        found["a.x"].at(head=1)


# Named, for the header's order is another one in each process.
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", BODY[:40], save({"a.x": ARRAY}), save({"a.x": ARRAY}, {"record": "r"})],
    ids=["empty", "json", "cut", "no record", "no axes"],
)
@pytest.mark.anyio
async def test_something_else_is_no_result(kind, body):
    with pytest.raises(UnexpectedReply):
        await call(kind("http://server", "", transport=serving(body, [])), "trace", PLAN)


@pytest.mark.anyio
async def test_a_reply_says_what_computed_it(kind):
    transport = serving(BODY, [], **{"X-Transom-Deployment": "sha256:ab"})
    found = await call(kind("http://server", "", transport=transport), "trace", PLAN)
    assert (found.deployment, sorted(found.names)) == ("sha256:ab", ["a.total", "a.x"])


@pytest.mark.anyio
async def test_a_plan_whose_model_is_null_means_the_only_one(kind):
    seen, card = [], {"id": "m", "created": 7, "owned_by": "x", "digest": "sha256:ab", "deployment": {}}
    served = json.dumps({"object": "list", "data": [card | {"max_model_len": 8}]}).encode()

    def answer(request):
        seen.append(request)
        return httpx2.Response(200, content=served if request.url.path == "/v1/models" else BODY)

    client = kind("http://server", "", transport=httpx2.MockTransport(answer))
    await call(client, "trace", PLAN | {"model": None})
    assert json.loads(seen[-1].content)["model"] == "m"


@pytest.mark.anyio
async def test_a_refusal_names_the_field(kind):
    detail = {"message": "No.", "type": "invalid_request_error", "param": "runs.a.read.x.at"}
    error = json.dumps({"error": detail | {"code": "unknown_point", "layer": "api"}}).encode()
    transport = httpx2.MockTransport(lambda _: httpx2.Response(400, content=error))
    with pytest.raises(InvalidRequest) as caught:
        await call(kind("http://server", "", transport=transport), "trace", PLAN)
    assert (caught.value.param, caught.value.reason) == ("runs.a.read.x.at", "unknown_point")


LARGE = np.arange(1 << 18, dtype=np.float32)
LARGE_BODY = save({"a.x": LARGE}, {"record": "rec_1", "axes.a.x": "unit"})


@pytest.mark.anyio
async def test_a_large_body_is_in_memory_once(kind):
    found = await call(kind("http://server", "", transport=serving(LARGE_BODY, [])), "trace", PLAN)
    assert bytes(found.content) == LARGE_BODY
    np.testing.assert_array_equal(found["a.x"].data, LARGE)
    found["a.x"].data[-1] = 7
    assert bytes(found.content[-4:]) == np.float32(7).tobytes()


@pytest.mark.anyio
async def test_a_large_body_that_is_compressed_on_its_way_is_read_too(kind):
    transport = serving(gzip.compress(LARGE_BODY, 0), [], **{"Content-Encoding": "gzip"})
    found = await call(kind("http://server", "", transport=transport), "trace", PLAN)
    np.testing.assert_array_equal(found["a.x"].data, LARGE)


@pytest.mark.parametrize("body", [LARGE_BODY[:-8], LARGE_BODY[8:]])
@pytest.mark.anyio
async def test_a_large_body_that_is_none_is_no_result(kind, body):
    with pytest.raises(UnexpectedReply):
        await call(kind("http://server", "", transport=serving(body, [])), "trace", PLAN)


def test_the_file_is_kept_as_it_came():
    found = Traced.parse(BODY)
    assert (found.content, found.deployment) == (BODY, None)


@pytest.mark.anyio
async def test_points_are_those_of_the_model_that_is_named(kind):
    point = {
        "name": "resid_post",
        "description": "",
        "layers": [0],
        "heads": None,
        "width": 8,
        "readable": True,
    }
    point |= {"writable": True, "differentiable": False, "reason": None}
    seen, page = [], {"model": "m", "deployment": "sha256:0", "data": [point]}
    client = kind("http://server", "", transport=serving(json.dumps(page).encode(), seen))
    found = await call(client, "points", model="m")
    assert seen[0].url.params["model"] == "m"
    assert found.data[0].layers == (0,)
    assert isinstance(client, Client | AsyncClient)


EXPLANATION = {
    "model": "m", "deployment": "sha256:1", "runs": 2, "cells": 6, "sequences": 7, "layers": 3,
    "tokens": {"prompt": 70, "generated": 0},
    "rows": {"alone": 210, "computed": 90, "gradients": 0, "output": 7},
    "shared": [
        {"run": "a", "begin": 6, "layers": [1, 2], "position": 0, "saved": 120, "bytes": 4096}
    ],
    "operations": {"forward": 1000, "gradients": 0, "output": 500, "total": 1500},
    "memory": {
        "values": 96, "captured": 0, "shared": 4096, "gradients": 0, "copy_of_model": 0, "total": 4192,
        "spilled": 5120
    },
    "returned_bytes": 96,
    "charged": {
        "requests": 1, "tokens": 70, "engine_seconds": 3.5, "internals_bytes": 96, "released_rank": 0.25
    },
    "scopes": ["internals:read", "internals:write"], "missing_scopes": ["internals:write"],
    "points": {"a.x": "resid_post.1"},
    "values": [
        {"name": "a.x", "dtype": "float32", "shape": [6, 4], "axes": ["sweep_layer", "unit"], "bytes": 96}
    ],
}  # fmt: skip


@pytest.mark.anyio
async def test_what_a_plan_takes_is_told_by_the_same_body(kind):
    seen = []
    client = kind("http://server", "", transport=serving(json.dumps(EXPLANATION).encode(), seen))
    found = await call(client, "explain", PLAN)
    assert (seen[0].method, seen[0].url.path) == ("POST", "/v1/traces/explain")
    # Whatever it says of its form: one answer might be too small.
    assert json.loads(seen[0].content) == PLAN | {"format": "parts"}
    assert found.rows.alone - found.rows.computed == found.shared[0].saved
    assert found.values[0].axes == ("sweep_layer", "unit")
