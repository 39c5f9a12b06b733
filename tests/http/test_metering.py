"""Scopes, grants and quotas over HTTP: who may, how much, and what is charged however it ends."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from tests.http.door import open_door
from tests.http.grants import PROGRAMME, holder
from transom.access.people.persons import PersonCaller
from transom.access.quotas import reconcile
from transom.schema.grants import Ending
from transom.services.programme import grants
from transom.storage.tables import quota_ledger

pytestmark = pytest.mark.anyio


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


def error_of(reply, status):
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


async def rows(door):
    query = select(quota_ledger).order_by(quota_ledger.c.reserved)
    return await door.house.desk.database.read(lambda connection: connection.execute(query).mappings().all())


async def balanced(door):
    await door.house.quotas.close()
    assert await door.house.desk.database.read(reconcile.check) == []


class TestWhoMay:
    async def test_a_project_without_a_grant_may_nothing_and_is_told_what_to_do(self, door):
        someone = await holder(door)
        operator = PersonCaller("per_operator", frozenset({"operator"}))
        await grants.end(door.house, operator, someone.grant, Ending(reason="The study is over."))
        door.house.entitlements.forget()
        error = error_of(await someone.ask(), 403)
        assert (error["code"], error["layer"]) == ("insufficient_scope", "access")
        assert "model:sample" in error["message"]
        assert "transom apply" in error["message"]

    @pytest.mark.parametrize(
        ("body", "scope"),
        [({"logit_bias": {"5": 1}}, "model:bias"), ({"logit_bias": {"5": 1}, "logprobs": 2}, "model:bias")],
    )
    async def test_a_scope_that_the_grant_lacks_is_named_with_a_tier_that_has_it(self, door, body, scope):
        someone = await holder(door)
        error = error_of(await someone.ask(**body), 403)
        assert scope in error["message"]
        assert "wide" in error["message"]
        assert await rows(door) == []

    async def test_a_key_that_was_narrowed_says_so(self, door):
        narrow = await (await holder(door)).another_key(scopes=["model:sample"])
        error = error_of(await narrow.ask(logprobs=1), 403)
        assert "another key" in error["message"]
        assert (await narrow.ask()).status_code == 200
        error_of(await narrow.get("/v1/records"), 403)

    async def test_a_model_that_the_grant_does_not_open_is_refused_by_name(self, door):
        error = error_of(await (await holder(door, "elsewhere")).ask(), 403)
        assert (error["code"], error["param"]) == ("model_not_granted", "model")

    async def test_replays_need_their_scope_and_are_charged(self, door):
        without, with_it = await holder(door), await holder(door, "wide")
        record = (await without.ask()).headers["x-transom-record"]
        headers = {"authorization": f"Bearer {without.key}"}
        error = error_of(await door.client.post(f"/v1/records/{record}/replay", headers=headers), 403)
        assert "records:replay" in error["message"]
        record = (await with_it.ask()).headers["x-transom-record"]
        headers = {"authorization": f"Bearer {with_it.key}"}
        report = (await door.client.post(f"/v1/records/{record}/replay", headers=headers)).json()
        assert report["level"] == "EXACT"
        asked, again = (await rows(door))[-2:]
        assert asked["tokens"] == again["tokens"] > 0

    async def test_the_operators_own_key_may_everything_and_is_in_the_ledger(self, door):
        for _ in range(7):
            await door.complete(logprobs=3, logit_bias={"5": 1}, max_tokens=2)
        assert len(await rows(door)) == 7


class TestHowMuch:
    async def test_tokens_are_charged_as_they_are_counted(self, door):
        someone = await holder(door)
        usage = (await someone.ask(max_tokens=7)).json()["usage"]
        assert await someone.usage("tokens_total", "grant") == usage["total_tokens"]
        (row,) = await rows(door)
        assert (row["tokens"], row["outcome"], row["short"]) == (usage["total_tokens"], "settled", False)
        assert row["person_id"] == someone.person.person_id
        assert row["grant_id"] == someone.grant
        await balanced(door)

    async def test_a_limit_of_requests_is_told_before_and_when_it_is_reached(self, door):
        someone = await holder(door)
        left = [(await someone.ask(max_tokens=1)).headers["x-ratelimit-remaining-requests"] for _ in range(5)]
        assert left == ["4", "3", "2", "1", "0"]
        reply = await someone.ask(max_tokens=1)
        error = error_of(reply, 429)
        assert (error["code"], error["layer"], error["type"]) == (
            "rate_limit_exceeded",
            "quota",
            "rate_limit_error",
        )
        assert 0 < int(reply.headers["retry-after"]) <= 60
        assert len(await rows(door)) == 5

    async def test_both_families_of_headers_say_the_same(self, door):
        reply = await (await holder(door)).ask(max_tokens=3)
        headers = reply.headers
        reset = headers["x-ratelimit-reset-tokens"].removesuffix("s")
        left = headers["x-ratelimit-remaining-tokens"]
        assert '"tokens_per_minute";q=300;w=60' in headers["ratelimit-policy"]
        assert f'"tokens_per_minute";r={left};t={reset}' in headers["ratelimit"]

    async def test_more_than_there_is_at_all_is_no_matter_of_waiting(self, door):
        reply = await (await holder(door)).ask(max_tokens=100, n=3)
        error = error_of(reply, 429)
        assert error["code"] == "insufficient_quota"
        assert "retry-after" not in reply.headers

    async def test_a_keys_own_limit_holds_beside_the_grants(self, door):
        narrow = await (await holder(door)).another_key(quotas={"requests_per_minute": 1})
        assert (await narrow.ask()).status_code == 200
        assert "Your key" in error_of(await narrow.ask(), 429)["message"]

    async def test_one_project_in_trouble_is_nothing_to_another(self, door):
        first, second = await holder(door), await holder(door)
        while (await first.ask(max_tokens=1)).status_code == 200:
            pass
        assert (await second.ask(max_tokens=1)).status_code == 200

    async def test_what_is_asked_side_by_side_never_exceeds_the_limit(self, door):
        someone = await holder(door)
        door.backend.knobs.pause = 0.02
        replies = await asyncio.gather(*(someone.ask(max_tokens=1) for _ in range(12)))
        door.backend.knobs.pause = 0.0
        assert sum(reply.status_code == 200 for reply in replies) == 2
        await balanced(door)


class TestHoweverItEnds:
    @pytest.mark.parametrize("knob", ["fail_after", "crash_after", "vanish_after"])
    async def test_a_failure_is_charged_with_what_was_generated(self, door, knob):
        someone = await holder(door)
        setattr(door.backend.knobs, knob, 3)
        prompt = (await someone.ask(max_tokens=9, ignore_eos=True)).status_code
        assert prompt == 500
        setattr(door.backend.knobs, knob, None)
        whole = (await someone.ask(max_tokens=9, ignore_eos=True)).json()["usage"]
        failed, answered = await rows(door)
        assert failed["tokens"] == whole["prompt_tokens"] + 3
        assert answered["tokens"] == whole["total_tokens"]
        await balanced(door)

    async def test_who_finds_no_room_is_charged_nothing(self, door):
        someone = await holder(door)
        admission = door.backend.admit(someone.project, door.backend.max_sequences)
        assert (await someone.ask()).status_code == 503
        admission.close()
        assert sum(row["tokens"] for row in await rows(door)) == 0
        assert (await someone.ask()).status_code == 200
        await balanced(door)

    async def test_a_stream_that_is_left_is_charged_with_what_was_generated(self, door):
        someone = await holder(door)
        door.backend.knobs.hang_after = 4
        asking = asyncio.create_task(someone.ask(stream=True, max_tokens=9, ignore_eos=True))
        await asyncio.wait_for(door.backend.hanging.wait(), 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        while not (found := await rows(door)):  # noqa: ASYNC110  # another thread commits it
            await asyncio.sleep(0.01)
        (row,) = found
        assert row["requests"] == 1
        assert row["tokens"] > 4
        await balanced(door)
