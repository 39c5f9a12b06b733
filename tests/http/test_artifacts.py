"""Artifacts over HTTP: what is kept, for whom, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.http.door import Door, open_door
from tests.http.guests import error_of

pytestmark = pytest.mark.anyio

KIND = {"content-type": "application/vnd.safetensors"}
FEW = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}
UNKNOWN = "f" * 64


def put(door: Door, content: bytes, **headers: str):
    return door.client.post("/v1/artifacts", content=content, headers=KIND | headers)


async def kept(door: Door, content: bytes) -> str:
    reply = await put(door, content)
    assert reply.status_code in (200, 201), reply.text
    return reply.json()["id"]


async def other_project(door: Door) -> dict[str, str]:
    """A key in a project that has nothing to do with ours."""
    key = (await door.house.keys.create("prj_other")).text
    return {"authorization": f"Bearer {key}"}


def vector(*numbers: float) -> bytes:
    return save({"v": np.array(numbers, np.float32)})


def file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


async def test_an_upload_is_named_by_the_digest_of_its_bytes(door):
    content = save(FEW)
    reply = await put(door, content)
    assert reply.status_code == 201
    body = reply.json()
    assert body["id"] == "artifact:" + hashlib.sha256(content).hexdigest()
    assert body["bytes"] == len(content)
    assert body["tensors"] == {
        "w": {"dtype": "float32", "shape": [2, 3]},
        "b": {"dtype": "float16", "shape": [4]},
    }
    assert body["created"].endswith("Z")


async def test_the_same_bytes_again_are_the_same_artifact(door):
    first = await put(door, vector(1, 2))
    again = await put(door, vector(1, 2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


async def test_the_bytes_come_back_as_they_were(door):
    content = save({"big": np.random.default_rng(0).normal(size=(700, 1000)).astype(np.float32)})
    name = await kept(door, content)
    reply = await door.client.get(f"/v1/artifacts/{name}/content")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == KIND["content-type"]
    assert reply.content == content


async def test_the_digest_alone_names_it_too(door):
    name = await kept(door, vector(3))
    short = await door.client.get("/v1/artifacts/" + name.removeprefix("artifact:"))
    assert short.json() == (await door.client.get(f"/v1/artifacts/{name}")).json()


async def test_a_list_is_newest_first_and_comes_in_pages(own_door):
    names = [await kept(own_door, vector(number)) for number in range(5)]
    seen, after = [], None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = (await own_door.client.get("/v1/artifacts", params=params)).json()
        seen += [each["id"] for each in page["data"]]
        after = page["after"]
        if after is None:
            break
    assert seen == names[::-1]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 30, "٣"])
async def test_what_is_no_cursor_is_refused(door, after):
    error = error_of(await door.client.get("/v1/artifacts", params={"after": after}), 400)
    assert error["param"] == "after"


async def test_what_is_deleted_is_not_there_and_can_be_uploaded_again(door):
    name = await kept(door, vector(4))
    assert (await door.client.delete(f"/v1/artifacts/{name}")).status_code == 204
    error_of(await door.client.get(f"/v1/artifacts/{name}"), 404)
    error_of(await door.client.get(f"/v1/artifacts/{name}/content"), 404)
    error_of(await door.client.delete(f"/v1/artifacts/{name}"), 404)
    assert (await put(door, vector(4))).status_code == 201


async def test_uploads_of_the_same_bytes_at_once_are_one_artifact(own_door):
    content = vector(*range(1000))
    replies = await asyncio.gather(*(put(own_door, content) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(blobs(own_door)) == 1
    assert spool(own_door) == []


@pytest.mark.parametrize("what", ["", "/content"])
async def test_another_projects_artifact_is_as_one_that_there_is_not(own_door, what):
    name = await kept(own_door, vector(5))
    theirs = await other_project(own_door)
    real = await own_door.client.get(f"/v1/artifacts/{name}{what}", headers=theirs)
    none = await own_door.client.get(f"/v1/artifacts/artifact:{UNKNOWN}{what}", headers=theirs)
    said = error_of(real, 404)
    assert said == json.loads(none.text.replace(UNKNOWN, name.removeprefix("artifact:")))["error"]
    error_of(await own_door.client.delete(f"/v1/artifacts/{name}", headers=theirs), 404)
    assert (await own_door.client.get("/v1/artifacts", headers=theirs)).json()["data"] == []


async def test_what_another_project_has_is_new_to_this_one(own_door):
    await kept(own_door, vector(6))
    reply = await put(own_door, vector(6), **await other_project(own_door))
    assert reply.status_code == 201


async def test_equal_content_of_two_projects_has_nothing_in_common_on_disk(own_door):
    content = save({"secret_name": np.arange(64, dtype=np.float32)})
    await kept(own_door, content)
    await put(own_door, content, **await other_project(own_door))
    one, other = blobs(own_door)
    assert one.read_bytes() != other.read_bytes()
    digest = hashlib.sha256(content).digest()
    whole = b"".join(
        path.read_bytes() for path in own_door.house.spool.folder.parent.rglob("*") if path.is_file()
    )
    for secret in (b"secret_name", digest, digest.hex().encode(), np.arange(64, dtype=np.float32).tobytes()):
        assert secret not in whole


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "artifact:",
        "artifact:" + "A" * 64,
        "a" * 63,
        "artifact:artifact:" + "a" * 46,
        "..%2f..%2fvault.json",
        "%2e%2e",
        "a" * 63 + "%00",
        "a" * 64 + "%0a",
        "a" * 5000,
    ],
)
async def test_what_is_no_id_is_not_found(door, name):
    assert (await door.client.get(f"/v1/artifacts/{name}")).status_code == 404
    assert (await door.client.delete(f"/v1/artifacts/{name}")).status_code == 404


BROKEN = {
    "nothing": b"",
    "seven bytes": b"\x01" * 7,
    "no header": struct.pack("<Q", 0),
    "header beyond the end": struct.pack("<Q", 100) + b"{}",
    "header of a terabyte": struct.pack("<Q", 1 << 40) + b"{}",
    "header of 2^64": b"\xff" * 8 + b"{}",
    "no JSON": file(b"{'a': 1}"),
    "no UTF-8": file(b'{"\xff": 1}'),
    "a list": file([]),
    "deep": file(b'{"a":' + b"[" * 100_000),
    "no tensors": file({}),
    "only metadata": file({"__metadata__": {"a": "b"}}),
    "metadata of numbers": file({"__metadata__": {"a": 1}, "v": entry()}, bytes(4)),
    "a name twice": file(b'{"v":%b,"v":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "a field too many": file({"v": entry() | {"x": 1}}, bytes(4)),
    "a field too few": file({"v": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "float64": file({"v": entry("F64", (1,), (0, 8))}, bytes(8)),
    "int64": file({"v": entry("I64", (1,), (0, 8))}, bytes(8)),
    "bool": file({"v": entry("BOOL", (4,))}, bytes(4)),
    "no type": file({"v": entry(7)}, bytes(4)),
    "no shape": file({"v": entry(shape=())}, bytes(4)),
    "a shape of nine axes": file({"v": entry(shape=(1,) * 9)}, bytes(4)),
    "nothing along an axis": file({"v": entry(shape=(0,), offsets=(0, 0))}),
    "a negative length": file({"v": entry(shape=(-1,))}, bytes(4)),
    "a length that is true": file({"v": entry(shape=(True,))}, bytes(4)),
    "a length of 1.0": file({"v": entry(shape=(1.0,))}, bytes(4)),
    "a shape bomb": file({"v": entry(shape=(2**62, 2**62), offsets=(0, 2**62))}, bytes(4)),
    "a length of 5000 digits": file(
        b'{"v":{"dtype":"F32","shape":[1%b],"data_offsets":[0,4]}}' % (b"0" * 5000)
    ),
    "more than the file": file({"v": entry(shape=(100,), offsets=(0, 400))}, bytes(4)),
    "less than the file": file({"v": entry()}, bytes(8)),
    "a hole": file({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "an overlap": file({"a": entry(), "b": entry(offsets=(0, 4))}, bytes(4)),
    "backwards": file({"v": entry(offsets=(4, 0))}, bytes(4)),
    "offsets of three": file({"v": entry(offsets=(0, 4, 8))}, bytes(4)),
    "NaN": vector(1, float("nan")),
    "infinity": save({"v": np.array([[1, np.inf]], np.float16)}),
    "bfloat16 infinity": file({"v": entry("BF16", (2,))}, struct.pack("<HH", 0, 0x7F80)),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "many tensors": save({f"t{index}": np.zeros(1, np.float32) for index in range(1025)}),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_no_artifact_is_refused_and_leaves_nothing(door, what):
    before = set(blobs(door))
    error = error_of(await put(door, BROKEN[what]), 400)
    assert error["code"] == "invalid_artifact"
    assert len(error["message"]) < 500
    assert set(blobs(door)) == before
    assert spool(door) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a..b", "/etc/passwd", "a b", "a#b", "ü", "x" * 129, "a\x00", "a\n"],
)
async def test_a_tensor_that_no_reference_could_name_is_refused(door, name):
    assert error_of(await put(door, file({name: entry()}, bytes(4))), 400)["code"] == "invalid_artifact"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int16", "uint16"])
async def test_types_that_float32_holds_are_taken(door, dtype):
    reply = await put(door, save({"v": np.array([[1, 2, 3]], dtype)}))
    assert reply.json()["tensors"] == {"v": {"dtype": dtype, "shape": [1, 3]}}


async def test_a_number_that_is_not_finite_is_named_with_its_place(door):
    numbers = np.zeros((3, 200_000), np.float32)
    numbers[2, 7] = np.nan
    error = error_of(await put(door, save({"deep.w": numbers})), 400)
    assert error["param"] == "tensors.deep.w"
    assert "[2, 7]" in error["message"]


async def test_no_key_is_asked_for_before_anything_is_read(door):
    reply = await door.client.post("/v1/artifacts", content=b"x", headers=KIND | {"authorization": ""})
    error_of(reply, 401)


async def test_who_sends_no_key_has_no_artifacts(tokenizer, tmp_path):
    async with open_door(tmp_path, tokenizer, allow_anonymous=True) as door:
        del door.client.headers["authorization"]
        error_of(await put(door, vector(1)), 403)
        error_of(await door.client.get("/v1/artifacts"), 403)
        error_of(await door.client.get(f"/v1/artifacts/{UNKNOWN}"), 403)
        error_of(await door.client.delete(f"/v1/artifacts/{UNKNOWN}"), 403)


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream", ""])
async def test_another_content_type_is_refused(door, kind):
    reply = await door.client.post("/v1/artifacts", content=vector(1), headers={"content-type": kind})
    error = error_of(reply, 415)
    assert (error["param"], error["code"]) == ("content-type", "unsupported_media_type")


async def test_one_that_is_too_large_is_refused_whether_it_says_so_or_not(tokenizer, tmp_path):
    async with open_door(tmp_path, tokenizer, artifact_mib=1) as door:
        content = save({"v": np.zeros(1 << 18, np.float32)})
        assert error_of(await put(door, content), 413)["code"] == "artifact_too_large"

        async def pieces():
            for start in range(0, len(content), 1000):
                yield content[start : start + 1000]

        reply = await door.client.post("/v1/artifacts", content=pieces(), headers=KIND)
        assert error_of(reply, 413)["code"] == "artifact_too_large"
        assert (blobs(door), spool(door)) == ([], [])


async def test_a_projects_artifacts_are_limited_together(tokenizer, tmp_path):
    async with open_door(tmp_path, tokenizer, artifact_mib=1, artifacts_mib=1) as door:
        half = np.zeros(150_000, np.float32)
        name = await kept(door, save({"a": half}))
        error = error_of(await put(door, save({"b": half})), 429)
        assert (error["code"], error["layer"]) == ("insufficient_quota", "quota")
        assert (await put(door, save({"a": half}))).status_code == 200
        assert (await put(door, save({"b": half}), **await other_project(door))).status_code == 201
        await door.client.delete(f"/v1/artifacts/{name}")
        assert (await put(door, save({"b": half}))).status_code == 201


async def test_an_upload_that_breaks_off_leaves_nothing(own_door):
    content = save({"v": np.zeros(1 << 20, np.float32)})

    async def broken():
        yield content[: 3 << 20]
        raise ConnectionError

    reply = await own_door.client.post("/v1/artifacts", content=broken(), headers=KIND)
    assert not reply.is_success
    assert (blobs(own_door), spool(own_door)) == ([], [])


async def test_what_was_changed_on_disk_is_not_given_out(own_door):
    name = await kept(own_door, vector(*range(100)))
    (blob,) = blobs(own_door)
    blob.write_bytes(bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:])
    error = error_of(await own_door.client.get(f"/v1/artifacts/{name}/content"), 500)
    assert (error["code"], error["layer"]) == ("storage_error", "records")


async def test_a_restart_keeps_what_was_acknowledged_and_sweeps_the_rest(tokenizer, tmp_path):
    async with open_door(tmp_path, tokenizer) as door:
        name = await kept(door, vector(7))
    (tmp_path / "spool" / "artifact-left").write_bytes(b"left")
    async with open_door(tmp_path, tokenizer) as door:
        reply = await door.client.get(f"/v1/artifacts/{name}/content")
        assert load(reply.content)["v"] == [7]
        assert spool(door) == []


def blobs(door: Door):
    return sorted((door.house.spool.folder.parent / "artifacts").iterdir())


def spool(door: Door):
    return list(door.house.spool.folder.iterdir())
