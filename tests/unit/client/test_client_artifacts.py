"""Artifacts from both clients: what is sent, and what is refused before it is."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from tests.unit.client.client_standin import Server, call, reply
from transom import AsyncClient, Client
from transom.errors import InvalidRequest

pytestmark = pytest.mark.anyio

ID = "artifact:" + "ab" * 32
VIEW = {"id": ID, "bytes": 9, "tensors": {"v": {"dtype": "float32", "shape": [3]}}, "created": "2026-01-01"}
VECTOR = np.arange(3, dtype=np.float32)


@pytest.fixture(params=[Client, AsyncClient])
def kind(request):
    return request.param


async def test_arrays_are_sent_as_safetensors(kind):
    server = Server({"POST /v1/artifacts": reply(VIEW, 201)})
    kept = await call(kind, server, "upload_artifact", {"v": VECTOR, "turned": np.ones((2, 3), np.float32).T})
    (request,) = server.requests
    assert request.headers["content-type"] == "application/vnd.safetensors"
    assert request.headers["content-length"] == str(len(request.content))
    sent = load(request.content)
    assert (sent["v"] == VECTOR).all()
    assert sent["turned"].shape == (3, 2)
    assert kept.id == ID
    assert kept.tensors["v"].shape == (3,)


async def test_a_file_is_sent_as_it_is(kind, tmp_path):
    save_file({"v": np.zeros(700_000, np.float32)}, tmp_path / "v.safetensors")
    server = Server({"POST /v1/artifacts": reply(VIEW)})
    await call(kind, server, "upload_artifact", tmp_path / "v.safetensors")
    await call(kind, server, "upload_artifact", str(tmp_path / "v.safetensors"))
    for request in server.requests:
        assert request.content == (tmp_path / "v.safetensors").read_bytes()


@pytest.mark.parametrize("tensors", ["nowhere.safetensors", {"v": np.array(["x"])}, {1: VECTOR}])
async def test_what_are_no_tensors_are_not_sent(kind, tensors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = Server()
    with pytest.raises(InvalidRequest) as refused:
        await call(kind, server, "upload_artifact", tensors)
    assert refused.value.param == "tensors"
    assert server.requests == []


async def test_they_are_listed_shown_fetched_and_deleted(kind):
    server = Server(
        {
            "GET /v1/artifacts": reply({"data": [VIEW], "after": "7"}),
            f"GET /v1/artifacts/{ID}": reply(VIEW),
            f"GET /v1/artifacts/{ID}/content": reply({"any": "bytes"}),
            f"DELETE /v1/artifacts/{ID}": reply(None, 204),
        }
    )
    page = await call(kind, server, "artifacts", after="9", limit=5)
    assert (page.data[0].id, page.after) == (ID, "7")
    assert dict(server.requests[0].url.params) == {"limit": "5", "after": "9"}
    assert (await call(kind, server, "artifact", ID)).bytes == 9
    assert await call(kind, server, "download_artifact", ID) == b'{"any":"bytes"}'
    assert await call(kind, server, "delete_artifact", ID) is None


@pytest.mark.parametrize("name", ["", "..", "artifact:../../x", "artifact:" + "A" * 64, "ab" * 31, ID + "#v"])
async def test_what_is_no_id_is_refused_before_it_is_sent(kind, name):
    for method in ("artifact", "download_artifact", "delete_artifact"):
        with pytest.raises(InvalidRequest):
            await call(kind, Server(), method, name)
