"""Results that are fetched apart: whole, in ranges, by their own project, for an hour, within limits."""

from __future__ import annotations

import hashlib
import shutil
from types import SimpleNamespace

import pytest
from safetensors.numpy import load

from tests.http.door import MODEL, open_door
from tests.http.guests import Clock
from transom.access.keys import issuing
from transom.access.keys.issuing import Wish
from transom.access.projects.projects import LOCAL, ensure_project
from transom.services import spool
from transom.services.tracing import traces

pytestmark = pytest.mark.anyio

PART = 1000
PLAN = {
    "model": MODEL,
    "runs": {
        "a": {"input": "The light in a window", "read": {"x": {"at": "resid_post.*", "unit": [0, 1, 7]}}}
    },
    "return": ["a.x"],
    "format": "parts",
}
WIDE = {"a": {"input": "The light in a window", "read": {"x": {"at": "resid_post.*"}}}}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def door(tokenizer, tmp_path, clock, monkeypatch):
    monkeypatch.setattr(traces, "PART_BYTES", PART)
    async with open_door(tmp_path, tokenizer, clock=clock) as door:
        yield door


async def kept(door, **more):
    reply = await door.post("/v1/traces", PLAN | {"runs": WIDE} | more)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def fetch(door, manifest, **headers):
    return await door.client.get(manifest["file"]["url"], headers=headers)


def files(door):
    return sorted(path.name for path in door.house.spool.folder.iterdir())


async def test_the_manifest_lists_a_file_that_is_what_it_says(door):
    manifest = await kept(door)
    content = (await fetch(door, manifest)).content
    assert len(content) == manifest["file"]["bytes"] > 20 * PART
    at = 0
    for part in manifest["parts"]:
        piece = content[at : at + part["bytes"]]
        assert (part["start"], part["sha256"]) == (at, hashlib.sha256(piece).hexdigest())
        at += part["bytes"]
    assert {part["bytes"] for part in manifest["parts"][:-1]} == {PART}
    assert at == len(content)
    (array,) = load(content).values()
    told = manifest["tensors"]["a.x"]
    assert (list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()) == (told["shape"], told["sha256"])
    assert told["axes"] == ["layer", "pos", "unit"]
    assert manifest["points"] == {"a.x": "resid_post.*"}
    assert (await door.record(manifest["id"]))["status"] == "complete"


async def test_it_is_fetched_again_and_again_and_piece_by_piece(door):
    manifest = await kept(door)
    whole = await fetch(door, manifest)
    pieces, size = [], manifest["file"]["bytes"]
    for start in range(0, size, 7777):
        end = min(start + 7777, size) - 1
        piece = await fetch(door, manifest, range=f"bytes={start}-{end}")
        assert (piece.status_code, piece.headers["content-range"]) == (206, f"bytes {start}-{end}/{size}")
        pieces.append(piece.content)
    assert b"".join(pieces) == whole.content
    rest = await fetch(door, manifest, range="bytes=500-", **{"if-range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[500:])
    assert (await fetch(door, manifest, range="bytes=-5")).content == whole.content[-5:]
    beyond = await fetch(door, manifest, range=f"bytes={size}-")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "range_not_satisfiable")


@pytest.mark.parametrize(
    "given",
    ["bytes=-", "bytes=5-2", "bytes=a-", "lines=0-1", "bytes=0-1,5-9", "bytes=-0", "bytes=" + "9" * 30 + "-"],
)
async def test_what_is_no_range_is_refused_by_name(door, given):
    refused = await fetch(door, await kept(door), range=given)
    assert refused.status_code in {400, 416}
    assert refused.json()["error"]["param"] == "range"


async def test_another_project_learns_nothing_of_it(door):
    manifest = await kept(door)
    await door.house.office.database.write(lambda connection: ensure_project(connection, "other"))
    theirs = {"authorization": f"Bearer {(await door.house.keys.create('other')).text}"}
    nothing = manifest["file"]["url"].replace(manifest["id"], "rec_" + "0" * 26)
    for method in ("GET", "DELETE"):
        replies = [
            await door.client.request(method, url, headers=theirs)
            for url in (manifest["file"]["url"], nothing)
        ]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].json() == replies[1].json()
    assert (await door.client.get(manifest["file"]["url"], headers={"authorization": ""})).status_code == 401
    assert (await fetch(door, manifest)).status_code == 200


async def test_a_second_key_of_the_project_may_fetch_it_if_it_may_read_inside(door):
    manifest = await kept(door)
    second = (await door.house.keys.create()).text
    assert (await fetch(door, manifest, authorization=f"Bearer {second}")).status_code == 200
    narrow = await narrowed(door, "records:read")
    refused = await fetch(door, manifest, authorization=f"Bearer {narrow}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")


async def narrowed(door, scope):
    wish, peppers = Wish(project_id=LOCAL, scopes=[scope]), door.house.office.peppers.latest()
    new = await door.house.office.database.write(
        lambda connection: issuing.issue(connection, peppers, wish, now=door.house.now())
    )
    return new.text


async def test_after_its_time_it_is_not_to_be_had_and_its_file_is_gone(door, clock):
    manifest = await kept(door)
    assert manifest["expires"] == "2026-03-01T13:00:00.000000Z"
    clock.forward(minutes=59)
    assert (await fetch(door, manifest)).status_code == 200
    clock.forward(minutes=1)
    refused = await fetch(door, manifest)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert "carry the plan out again" in refused.json()["error"]["message"]
    # Whoever asked a moment before is still being sent it.
    door.house.spool.sweep()
    assert files(door) == [f"{manifest['id']}.safetensors"]
    clock.forward(minutes=1)
    door.house.spool.sweep()
    assert files(door) == []


async def test_it_can_be_given_back_before_its_time(door):
    manifest = await kept(door)
    assert (await door.client.delete(manifest["file"]["url"])).status_code == 204
    assert files(door) == []
    for method in ("GET", "DELETE"):
        assert (await door.client.request(method, manifest["file"]["url"])).status_code == 404


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..%2ftransom.db", "%2fetc%2fpasswd", "rec_x%00", "*", "-1", "é"]
)
async def test_a_name_that_is_a_path_leads_nowhere(door, name):
    manifest = await kept(door)
    for method in ("GET", "DELETE"):
        reply = await door.client.request(method, f"/v1/traces/{name}/file")
        assert reply.status_code in {404, 405}, reply.text
        assert reply.json()["error"]["code"] in {"not_found", "method_not_allowed"}
    assert files(door) == [f"{manifest['id']}.safetensors"]


async def test_a_plan_that_fails_keeps_nothing(door):
    refused = await door.post(
        "/v1/traces", PLAN | {"derive": {"d": {"normalize": "a.x"}}, "return": ["derive.d"]}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "plan_failed")
    assert files(door) == []
    assert not door.house.spool._held
    assert not door.house.spool._coming


async def test_more_than_a_project_may_keep_waits_until_the_first_is_over(door, clock, monkeypatch):
    first = await kept(door)
    monkeypatch.setattr(spool, "MAX_KEPT_BYTES", 2 * first["file"]["bytes"])
    clock.forward(minutes=20)
    second = await kept(door)
    refused = await door.post("/v1/traces", PLAN | {"runs": WIDE})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == str(40 * 60 + 1)
    # Others are not concerned, and nor are answers that are sent at once.
    assert (await door.post("/v1/traces", PLAN | {"runs": WIDE, "format": "safetensors"})).status_code == 200
    await door.client.delete(second["file"]["url"])
    assert (await door.post("/v1/traces", PLAN | {"runs": WIDE})).status_code == 200


async def test_what_the_disk_has_no_room_for_is_refused_with_both_numbers(door, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1000))
    refused = await door.post("/v1/traces", PLAN | {"runs": WIDE})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "plan_too_large", "runs")
    assert "has room for 500" in error["message"]
    wanted = int(error["message"].split(" up to ")[1].split()[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2 * wanted))
    # Room that others have taken is not there twice.
    with door.house.spool.room("other", 1, 0):
        refused = await door.post("/v1/traces", PLAN | {"runs": WIDE})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
        assert refused.headers["retry-after"] == "60"
    assert (await door.post("/v1/traces", PLAN | {"runs": WIDE})).status_code == 200


async def test_more_than_one_answer_carries_is_refused_with_the_remedy(door, monkeypatch):
    monkeypatch.setattr(traces, "MAX_ANSWER_BYTES", 1000)
    refused = await door.post("/v1/traces", PLAN | {"runs": WIDE, "format": "safetensors"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "plan_too_large", "format")
    assert "ask for parts" in error["message"]
    assert (await door.post("/v1/traces", PLAN | {"runs": WIDE})).status_code == 200


async def test_its_record_replays_without_keeping_anything(door):
    manifest = await kept(door)
    assert (await door.replay(manifest["id"]))["level"] == "EXACT"
    assert files(door) == [f"{manifest['id']}.safetensors"]


async def test_a_restart_forgets_it_and_leaves_no_file(door, tokenizer, tmp_path):
    manifest = await kept(door)
    (door.house.spool.folder / "rec_9.partial").write_bytes(b"half")
    async with open_door(tmp_path, tokenizer) as again:
        assert files(again) == []
        refused = await again.client.get(manifest["file"]["url"])
        assert refused.status_code == 404
