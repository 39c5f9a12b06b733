"""Challenges: what anybody asks for and what lots fall on is replayed in public, and a miss is seen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete

import transom.app
from tests.http.door import open_door
from tests.http.test_log import receipt_of
from tests.http.test_records import other_project, tamper
from transom.errors import EngineUnavailable
from transom.records.beacons import BeaconFile
from transom.schema.canonical import sha256
from transom.schema.challenges import Challenge, Verdict, drawn
from transom.services.evidence import challenges
from transom.storage.tables import records
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.notes import COSIGNATURE, Note, Signer
from transom.tlog.policies import Policy
from transom.tlog.proofs import Proof

pytestmark = pytest.mark.anyio


@pytest.fixture
async def own_door(tokenizer, tmp_path, monkeypatch):
    """A door whose challenges are met when the test says so."""

    async def rest(_house):
        await asyncio.Event().wait()

    monkeypatch.setattr(transom.app, "_meet_challenges", rest)
    async with open_door(tmp_path, tokenizer) as door:
        yield door


async def logged(door, **more):
    """(index in the log, id) of a record that is published."""
    record_id = (await door.complete(**{"max_tokens": 3} | more))["id"]
    return Proof.parse((await receipt_of(door, record_id)).text).index, record_id


async def ask(door, index):
    del door.client.headers["authorization"]
    reply = await door.client.post(f"/v1/challenges/{index}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def document(door, digest):
    reply = await door.client.get(f"/log/documents/{digest}")
    assert sha256(reply.content) == digest
    return reply.content


async def outcome(door, digest):
    return (await door.client.get(f"/v1/challenges/{digest}")).json()


async def test_anybody_has_a_record_replayed_and_reads_what_came_of_it(own_door):
    index, record_id = await logged(own_door)
    record = await own_door.record(record_id)
    view = await ask(own_door, index)
    assert (view["index"], view["outcome"], view["verdict"]) == (index, "open", None)
    challenge = Challenge.model_validate_json(await document(own_door, view["digest"]))
    assert (challenge.index, challenge.lot) == (index, None)
    assert open_checkpoint(challenge.checkpoint, own_door.house.log.key)[0].size > index
    # Asked again while it is open, it is the same one.
    assert (await ask_again(own_door, index))["digest"] == view["digest"]
    assert await challenges.meet(own_door.house) == 1
    after = await outcome(own_door, view["digest"])
    assert after["outcome"] == "met"
    verdict = Verdict.model_validate_json(await document(own_door, after["verdict"]))
    (found,) = verdict.found
    assert (verdict.challenge, verdict.value) == (view["digest"], None)
    assert (found.index, found.digest, found.level) == (index, record["digest"], "EXACT")
    assert await challenges.meet(own_door.house) == 0


async def ask_again(door, index):
    return (await door.client.post(f"/v1/challenges/{index}")).json()


async def test_a_record_of_any_project_is_replayed_and_nobody_is_charged(own_door):
    theirs = await other_project(own_door)
    body = {"model": "fake", "prompt": "x", "max_tokens": 2}
    reply = await own_door.client.post("/v1/completions", json=body, headers=theirs)
    record = await own_door.client.get(f"/v1/records/{reply.json()['id']}/receipt", headers=theirs)
    while record.status_code == 404:
        record = await own_door.client.get(f"/v1/records/{reply.json()['id']}/receipt", headers=theirs)
    view = await ask(own_door, Proof.parse(record.text).index)
    await challenges.meet(own_door.house)
    verdict = (await outcome(own_door, view["digest"]))["verdict"]
    (found,) = Verdict.model_validate_json(await document(own_door, verdict)).found
    assert found.level == "EXACT"


@pytest.mark.parametrize("lie", ["token", "deleted", "shredded"])
async def test_a_lie_is_logged_for_everybody(own_door, lie):
    # By this seed the other model draws another token.
    index, record_id = await logged(own_door, seed=1)
    if lie == "token":
        own_door.backend.knobs.lie_at = 0
    elif lie == "deleted":
        gone = delete(records).where(records.c.id == record_id)
        await own_door.house.records._database.write(lambda connection: connection.execute(gone).rowcount)
    else:
        await tamper(own_door, record_id, openings=b"")
    view = await ask(own_door, index)
    await challenges.meet(own_door.house)
    verdict = (await outcome(own_door, view["digest"]))["verdict"]
    (found,) = Verdict.model_validate_json(await document(own_door, verdict)).found
    expected = {
        "token": ("OUTSIDE", "TOKEN at 0"),
        "deleted": ("MISSING", None),
        "shredded": ("UNREPLAYABLE", "SHREDDED"),
    }
    assert (found.level, found.reason) == expected[lie]


async def test_an_engine_that_is_away_leaves_a_challenge_open_and_then_missed(own_door, monkeypatch):
    index, _ = await logged(own_door)
    view = await ask(own_door, index)

    async def away(*_):
        raise EngineUnavailable("not now")

    monkeypatch.setattr(challenges.replay, "judge", away)
    assert await challenges.meet(own_door.house) == 0
    assert (await outcome(own_door, view["digest"]))["outcome"] == "open"
    later = own_door.house.now() + timedelta(days=1, seconds=1)
    own_door.house.now = lambda: later
    assert (await outcome(own_door, view["digest"]))["outcome"] == "missed"
    monkeypatch.undo()
    # Judged late it is still missed: the time of the verdict says so.
    assert await challenges.meet(own_door.house) == 1
    assert (await outcome(own_door, view["digest"]))["outcome"] == "missed"
    counts = (await own_door.client.get("/v1/transparency")).json()["challenges"]
    assert counts == {"open": 0, "met": 0, "missed": 1}


@pytest.mark.parametrize(("index", "status"), [("999", 404), ("-1", 404), ("x", 400), ("0", 400)])
async def test_what_cannot_be_replayed_is_refused(own_door, index, status):
    await logged(own_door)
    reply = await own_door.client.post(f"/v1/challenges/{index}")
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == "index"


async def test_so_many_are_taken_in_a_day(own_door):
    own_door.house.rules = replace(own_door.house.rules, most_asked=1)
    first, _ = await logged(own_door)
    second, _ = await logged(own_door)
    await ask(own_door, first)
    reply = await own_door.client.post(f"/v1/challenges/{second}")
    assert reply.status_code == 429
    assert 0 < int(reply.headers["retry-after"]) <= 86400
    # One that is open costs nothing.
    assert (await own_door.client.post(f"/v1/challenges/{first}")).status_code == 200


async def test_lots_fall_on_entries_that_everybody_can_compute(own_door, tmp_path):
    house, dice = own_door.house, tmp_path / "dice.txt"
    house.rules = replace(house.rules, beacon=BeaconFile(dice), count=3)
    for _ in range(4):
        await logged(own_door)
    assert await challenges.draw(house)
    assert not await challenges.draw(house)
    (view,) = (await own_door.client.get("/v1/challenges")).json()["data"]
    challenge = Challenge.model_validate_json(await document(own_door, view["digest"]))
    assert challenge.lot.beacon == "file:dice.txt"
    assert challenge.lot.round == str(house.now().date())
    # Until the beacon has spoken nothing is judged.
    assert await challenges.meet(house) == 0
    dice.write_text(f"{challenge.lot.round} {'5a' * 32}\n")
    assert await challenges.meet(house) == 1
    after = await outcome(own_door, view["digest"])
    verdict = Verdict.model_validate_json(await document(own_door, after["verdict"]))
    head, _ = open_checkpoint(challenge.checkpoint, house.log.key)
    expected = list(drawn(head.root, b"\x5a" * 32, head.size, 3))
    assert ([found.index for found in verdict.found], verdict.value) == (expected, "5a" * 32)
    kinds = dict.fromkeys(range(3), "NO RECORD")  # a key, the rules, a deployment
    assert [found.level for found in verdict.found] == [kinds.get(n, "EXACT") for n in expected]


async def test_the_first_cosigned_checkpoint_with_a_lot_is_told_in_its_verdict(own_door, tmp_path):
    house, dice = own_door.house, tmp_path / "dice.txt"
    house.rules = replace(house.rules, beacon=BeaconFile(dice), count=1)
    await logged(own_door)
    assert await challenges.draw(house)
    view = (await own_door.client.get("/v1/challenges")).json()["data"][0]
    before = house.log.note()
    (house.log.folder / "cosigned").write_bytes(before)
    assert await challenges.meet(house) == 0
    await published(own_door, view["place"] + 1)
    note = house.log.note()
    (house.log.folder / "cosigned").write_bytes(note)
    assert await challenges.meet(house) == 0
    dice.write_text(f"{house.now().date()} {'5a' * 32}\n")
    assert await challenges.meet(house) == 1
    digest = (await outcome(own_door, view["digest"]))["verdict"]
    shown = Verdict.model_validate_json(await document(own_door, digest)).shown
    assert shown.encode() == note


async def published(door, size):
    async with asyncio.timeout(60):
        while door.house.progress().published < size:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_how_the_operator_stands_is_public(own_door):
    await logged(own_door)
    await published(own_door, 4)
    del own_door.client.headers["authorization"]
    told = (await own_door.client.get("/v1/transparency")).json()
    assert told["log"]["origin"] == own_door.house.log.key.name
    assert told["log"]["kept"] == told["log"]["published"] == 4
    assert told["log"]["checkpoint_age_s"] < 60
    assert told["log"]["stands"] is None
    deployment = own_door.backend.served.deployment.digest
    assert told["deployments"] == [{"model": "fake", "deployment": deployment, "place": 2}]
    assert told["challenges"] == {"open": 0, "met": 0, "missed": 0}
    assert told["beacon"] is None
    assert told["log"]["witnesses"] == []


async def test_who_has_cosigned_is_told_by_name_and_nobody_else(own_door):
    await logged(own_door)
    house, clock = own_door.house, lambda: 1_800_000_000
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
    signers = [Signer(f"w{n}.example", key, COSIGNATURE, clock) for n, key in enumerate(keys)]
    lines = [f"witness w{n} {signer.verifier}" for n, signer in enumerate(signers[:2])]
    house.witnesses = Policy.parse("\n".join([f"log {house.log.key}", *lines, "quorum none"]))
    note = Note.parse(house.log.note())
    signed = note.signed(*(signer.sign(note.text) for signer in signers[1:]))
    (house.log.folder / "checkpoint").write_text(str(signed))
    told = (await own_door.client.get("/v1/transparency")).json()
    assert told["log"]["witnesses"] == [{"name": "w1", "at": 1_800_000_000}]


async def test_a_server_meets_its_challenges_by_itself(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(transom.app, "TICK_SECONDS", 0.05)
    async with open_door(tmp_path, tokenizer) as door:
        index, _ = await logged(door)
        digest = (await ask(door, index))["digest"]
        async with asyncio.timeout(60):
            while (await outcome(door, digest))["outcome"] != "met":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
