"""Replaying many records together, and what a report says of all their tokens."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.http.door import MODEL, open_door
from tests.http.grants import PROGRAMME, holder
from tests.http.test_metering import error_of, rows
from tests.http.test_records import other_project
from transom.services.evidence.rerunning import Rerun

pytestmark = pytest.mark.anyio


@pytest.fixture
async def door(tokenizer, tmp_path):
    (tmp_path / "programme.toml").write_text(PROGRAMME)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


async def replay_all(door, ids, **options):
    return await door.client.post("/v1/records/replay", json={"ids": ids}, **options)


async def several(door) -> list[str]:
    asked = [
        {"max_tokens": 9},
        {"n": 3, "logprobs": 2, "temperature": 0.4},
        {"prompt": [[5, 6], [7] * 30], "max_tokens": 4, "seed": 3},
        {"max_tokens": 0, "echo": True, "logprobs": 1},
        {"stop": ["e"], "max_tokens": 40, "ignore_eos": True},
        {"distributions": [1], "measures": {"kl": True}},
    ]
    return [(await door.complete(**body))["id"] for body in asked]


async def test_several_records_are_replayed_in_the_order_of_their_ids(own_door):
    ids = await several(own_door)
    ids.reverse()
    reply = await replay_all(own_door, ids)
    assert reply.status_code == 200, reply.text
    reports = reply.json()["data"]
    assert [report["record"] for report in reports] == ids
    assert {report["level"] for report in reports} == {"EXACT"}
    for record_id, report in zip(ids, reports, strict=True):
        alone = await own_door.replay(record_id)
        assert alone | {"elapsed_s": 0} == report | {"elapsed_s": 0}


async def test_nothing_is_generated(own_door):
    ids = await several(own_door)
    own_door.backend.taken.clear()
    await replay_all(own_door, ids)
    assert len(own_door.backend.taken) == 9
    assert all(request.forced is not None for request in own_door.backend.taken)


async def test_the_report_counts_what_differs_and_says_by_how_much(own_door):
    ids = [(await own_door.complete(prompt=[5, 6, 7], max_tokens=12, temperature=0))["id"] for _ in range(2)]
    honest = (await replay_all(own_door, ids)).json()["data"]
    margins = {"mean": 0.0, "largest": 0.0, "infinite": 0}
    assert [(report["differing"], report["margins"]) for report in honest] == [(0, margins)] * 2
    own_door.backend.knobs.lie_at = 3 + 4
    (report, _) = (await replay_all(own_door, ids)).json()["data"]
    assert (report["level"], report["reason"]) == ("OUTSIDE", "TOKEN at 4")
    # It goes on behind the first difference.
    assert report["differing"] > 4
    assert report["margins"]["largest"] > 0.5 >= report["margins"]["mean"] > 0


async def tampered(own_door, monkeypatch, change) -> dict:
    answer = await own_door.complete(prompt=[5, 6, 7], max_tokens=12, ignore_eos=True, seed=1)
    plain = Rerun.__post_init__

    def lied_to(rerun) -> None:
        change(rerun)
        plain(rerun)

    monkeypatch.setattr(Rerun, "__post_init__", lied_to)
    return await own_door.replay(answer["id"])


@pytest.mark.parametrize("at", [0, 5, 11])
async def test_an_exchanged_token_is_found_where_it_is(own_door, monkeypatch, at):
    def exchange(rerun):
        tokens = rerun.request.sequences[0].token_ids
        tokens[at] = 300 if tokens[at] != 300 else 301

    report = await tampered(own_door, monkeypatch, exchange)
    assert report["reason"] == f"TOKEN at {at}"
    assert report["first_difference"] == {"sequence": 0, "position": at}
    assert report["differing"] >= 1


@pytest.mark.parametrize("at", [0, 11])
async def test_an_exchanged_logprob_is_found_where_it_is(own_door, monkeypatch, at):
    def exchange(rerun):
        rerun.request.sequences[0].logprobs[at] -= 1e-3

    report = await tampered(own_door, monkeypatch, exchange)
    assert (report["reason"], report["differing"]) == (f"LOGPROB at {at}", 0)


@pytest.mark.parametrize("cut", [1, 6])
async def test_an_answer_that_was_cut_off_is_found_at_its_end(own_door, monkeypatch, cut):
    def shorten(rerun):
        sequence = rerun.request.sequences[0]
        del sequence.token_ids[-cut:], sequence.logprobs[-cut:]

    report = await tampered(own_door, monkeypatch, shorten)
    assert (report["reason"], report["differing"]) == ("ENDING", 0)
    assert report["first_difference"]["position"] == 12 - cut


@pytest.mark.parametrize("ending", ["stop string", "end of sequence"])
async def test_an_answer_that_was_gone_on_with_is_found_where_it_ended(own_door, monkeypatch, ending):
    asked = {"stop": ["e"], "ignore_eos": True} if ending == "stop string" else {"logit_bias": {"2": 9}}
    answer = await own_door.complete(prompt=[5, 6], max_tokens=60, seed=1, return_token_ids=True, **asked)
    choice = answer["choices"][0]
    count = len(choice["token_ids"])
    assert choice["finish_reason"] == "stop"
    plain = Rerun.__post_init__

    def lengthen(rerun) -> None:
        sequence = rerun.request.sequences[0]
        sequence.token_ids.extend([70, 71])
        sequence.logprobs.extend([-1.0, -1.0])
        plain(rerun)

    monkeypatch.setattr(Rerun, "__post_init__", lengthen)
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", f"TOKEN at {count}")


@pytest.mark.parametrize("other", [{"seed": 2}, {"temperature": 0.2}], ids=str)
async def test_another_seed_or_temperature_is_found(own_door, monkeypatch, other):
    from dataclasses import replace

    def exchange(rerun):
        sampling = replace(rerun.request.sampling, **other)
        object.__setattr__(rerun.request, "sampling", sampling)

    report = await tampered(own_door, monkeypatch, exchange)
    assert report["reason"].startswith("TOKEN at ")
    assert report["differing"] > 1


async def test_each_record_has_its_own_finding(own_door):
    good = (await own_door.complete(prompt=[5] * 3, max_tokens=2, temperature=0))["id"]
    bad = (await own_door.complete(prompt=[5] * 40, max_tokens=3, temperature=0))["id"]
    own_door.backend.knobs.unavailable = True
    gone = await own_door.post("/v1/completions", {"model": MODEL, "prompt": "hi"})
    own_door.backend.knobs.unavailable = False
    own_door.backend.knobs.lie_at = 41
    ids = [bad, gone.headers["x-transom-record"], good]
    reports = (await replay_all(own_door, ids)).json()["data"]
    found = [(report["level"], report["reason"]) for report in reports]
    assert found == [("OUTSIDE", "TOKEN at 1"), ("UNREPLAYABLE", "EMPTY"), ("EXACT", None)]
    assert reports[1]["margins"] is None


async def test_records_whose_sequences_do_not_wait_at_once_are_replayed_in_parts(own_door):
    ids = [(await own_door.complete(n=40, max_tokens=2))["id"] for _ in range(5)]
    own_door.backend.room.share = 70
    reports = (await replay_all(own_door, ids)).json()["data"]
    assert {report["level"] for report in reports} == {"EXACT"}


UNKNOWN = "rec_" + "0" * 26


@pytest.mark.parametrize(
    ("ids", "param"),
    [
        ([], "ids"),
        (None, "ids"),
        ("rec_1", "ids"),
        ([1], "ids.0"),
        ([""], "ids.0"),
        (["a" * 65], "ids.0"),
        ([UNKNOWN] * 2, "ids"),
        ([f"rec_{number}" for number in range(513)], "ids"),
    ],
    ids=["empty", "missing", "text", "number", "no name", "too long", "twice", "too many"],
)
async def test_what_is_no_list_of_records_is_refused_by_name(own_door, ids, param):
    reply = await replay_all(own_door, ids)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


async def test_one_unknown_record_is_a_404_and_nothing_is_replayed(own_door):
    known = (await own_door.complete())["id"]
    own_door.backend.taken.clear()
    for ids in ([known, UNKNOWN], [known, "nonsense"]):
        reply = await replay_all(own_door, ids)
        assert reply.status_code == 404
        assert ids[1] in reply.json()["error"]["message"]
    assert own_door.backend.taken == []


async def test_another_projects_record_is_unknown(own_door):
    known = (await own_door.complete())["id"]
    reply = await replay_all(own_door, [known], headers=await other_project(own_door))
    assert reply.status_code == 404


async def test_without_a_key_nothing_is_replayed(own_door):
    reply = await replay_all(own_door, [UNKNOWN], headers={"authorization": ""})
    assert reply.status_code == 401


async def test_an_unknown_field_is_refused(own_door):
    reply = await own_door.client.post("/v1/records/replay", json={"ids": [UNKNOWN], "level": "EXACT"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "level")


async def test_a_batch_is_charged_once_for_every_token_and_releases_nothing(door):
    someone = await holder(door, "wide")
    ids = [
        (await someone.ask(max_tokens=number + 1, logprobs=3)).headers["x-transom-record"]
        for number in range(3)
    ]
    headers = {"authorization": f"Bearer {someone.key}"}
    assert (await replay_all(door, ids, headers=headers)).status_code == 200
    *asked, batch = await rows(door)
    assert len(asked) == 3
    assert batch["tokens"] == sum(row["tokens"] for row in asked)
    assert (batch["requests"], batch["released_rank"], batch["outcome"]) == (1, 0, "settled")


async def test_a_batch_needs_its_scope_and_a_quota_before_anything_is_computed(door):
    someone = await holder(door)
    record = (await someone.ask()).headers["x-transom-record"]
    headers = {"authorization": f"Bearer {someone.key}"}
    error = error_of(await replay_all(door, [record], headers=headers), 403)
    assert "records:replay" in error["message"]


async def test_an_engine_that_fails_says_nothing_about_any_record(own_door):
    ids = [(await own_door.complete(max_tokens=8, ignore_eos=True))["id"] for _ in range(3)]
    own_door.backend.knobs.fail_after = 3
    assert (await replay_all(own_door, ids)).status_code == 500
    own_door.backend.knobs.fail_after = None
    assert {r["level"] for r in (await replay_all(own_door, ids)).json()["data"]} == {"EXACT"}


async def test_leaving_a_batch_aborts_it(own_door):
    record = (await own_door.complete(max_tokens=4, ignore_eos=True))["id"]
    own_door.backend.knobs.hang_after = 2
    task = asyncio.create_task(replay_all(own_door, [record]))
    await asyncio.wait_for(own_door.backend.hanging.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    own_door.backend.knobs.hang_after = None
    assert json.loads((await replay_all(own_door, [record])).content)["data"][0]["level"] == "EXACT"
