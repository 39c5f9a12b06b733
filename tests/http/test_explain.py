"""`POST /v1/traces/explain`: who may ask, what it costs, and that it refuses what the plan would be."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.http.door import open_door
from tests.http.grants import PROGRAMME, holder
from transom.storage.tables import quota_ledger

pytestmark = pytest.mark.anyio

EXPLAIN = "/v1/traces/explain"
READ = {"x": {"at": "resid_post.1", "pos": -1}}
PLAN = {"model": "fake", "runs": {"a": {"input": {"token_ids": [5, 6, 7]}, "read": READ}}, "return": ["a.x"]}

LONG = {"input": {"token_ids": [5] * 256}, "read": {"x": {"at": "resid_post.*"}}}
HUGE = {f"a{index}": LONG for index in range(200)}


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


async def ask(someone, path=EXPLAIN, **change):
    headers = {"authorization": f"Bearer {someone.key}"}
    return await someone.door.client.post(path, json=PLAN | change, headers=headers)


async def test_whoever_lacks_the_scope_is_told_the_cost_and_which_scope_is_missing(door):
    someone = await holder(door)
    reply = await ask(someone)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["scopes"], found["missing_scopes"]) == (["internals:read"], ["internals:read"])
    assert found["returned_bytes"] == found["charged"]["internals_bytes"] == 4 * 4096
    assert found["values"][0]["axes"] == ["pos", "unit"]
    assert (await ask(someone, "/v1/traces")).status_code == 403


async def test_it_charges_a_request_and_nothing_else_and_leaves_no_record(door):
    someone = await holder(door)
    reply = await ask(someone)
    assert int(reply.headers["x-ratelimit-remaining-requests"]) == 4
    assert (await someone.get("/v1/records")).json()["data"] == []
    database = door.house.desk.database
    (row,) = await database.read(lambda each: each.execute(select(quota_ledger)).mappings().all())
    charged = {name: row[name] for name in ("requests", "tokens", "internals_bytes", "released_rank")}
    assert charged == {"requests": 1, "tokens": 0, "internals_bytes": 0, "released_rank": 0}


async def test_questions_beyond_the_quota_are_refused(door):
    someone = await holder(door)
    assert [(await ask(someone)).status_code for _ in range(6)] == [200] * 5 + [429]


async def test_nobody_is_answered_without_a_key_or_about_a_model_that_is_not_granted(door):
    del door.client.headers["authorization"]
    assert (await door.client.post(EXPLAIN, json=PLAN)).status_code == 401
    other = await holder(door, tier="elsewhere")
    refused = await ask(other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_granted")


@pytest.mark.parametrize(
    "change",
    [
        {"run": {}},
        {"return": ["a.y"]},
        {"model": "nobody"},
        {"runs": {"a": {"input": "x", "read": {"x": {"at": "resid_post.7"}}}}},
        {"runs": {"a": {"input": "x", "read": {"x": {"at": "resid_mid.1"}}}}},
        {"runs": {"a": {"input": {"token_ids": [5] * 300}, "read": READ}}},
        # What is read may lie on disk; what is derived of it may not.
        {"runs": HUGE, "derive": {"d": {"stack": [f"{run}.x" for run in HUGE]}}, "return": ["derive.d"]},
    ],
    ids=["unknown", "reference", "model", "layer", "nowhere", "context", "huge"],
)
async def test_it_refuses_what_the_plan_itself_would_be_and_by_the_same_words(door, change):
    someone = await holder(door)
    plain, asked = await ask(someone, "/v1/traces", **change), await ask(someone, **change)
    assert asked.status_code == plain.status_code >= 400
    told, expected = asked.json()["error"], plain.json()["error"]
    for name in ("code", "param", "message"):
        assert told[name] == expected[name]
