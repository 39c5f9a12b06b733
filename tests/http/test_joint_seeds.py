"""Seeds that neither side picks, over HTTP: promised, used once, on record, and replayed."""

from __future__ import annotations

import json

import pytest

from tests.http.test_records import other_project, stored, tamper
from transom.errors import EngineBusy
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.randomness import JointSeed, Promises, bring_nonces

pytestmark = pytest.mark.anyio

ZEROS = "sha256:" + "0" * 64


async def promised(door):
    reply = await door.post("/v1/seeds", {})
    assert reply.status_code == 200, reply.text
    (seed,) = bring_nonces(Promises(**reply.json()))
    return seed


@pytest.mark.parametrize("kind", ["complete", "chat"])
async def test_the_record_shows_how_its_seed_was_made(own_door, kind):
    seed = await promised(own_door)
    answer = await getattr(own_door, kind)(max_tokens=4, temperature=1.0, transom={"seed": seed})
    randomness = (await own_door.record(answer["id"]))["statement"]["predicate"]["randomness"]
    joint = JointSeed.read(randomness["joint"])
    assert (joint.commitment, joint.nonce) == (seed["commitment"], seed["nonce"])
    assert (randomness["source"], randomness["seed"]) == ("joint", str(joint.seed))
    assert (await own_door.replay(answer["id"]))["level"] == "EXACT"
    # The same as with that seed given.
    again = await getattr(own_door, kind)(max_tokens=4, temperature=1.0, seed=joint.seed)
    assert [choice | {"index": 0} for choice in again["choices"]] == answer["choices"]


async def test_an_answer_whose_seed_the_server_picked_after_all_is_found(own_door):
    answer = await own_door.complete(max_tokens=4, transom={"seed": await promised(own_door)})
    statement = json.loads((await stored(own_door, answer["id"])).statement)
    statement["predicate"]["randomness"]["joint"] = JointSeed("11" * 32, "22" * 32).said
    changed = canonical_bytes(statement)
    await tamper(own_door, answer["id"], statement=changed, digest=sha256(changed))
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", "SEED")


async def test_a_commitment_is_good_for_one_answer(own_door):
    seed = await promised(own_door)
    await own_door.complete(max_tokens=1, transom={"seed": seed})
    for who in ({}, await other_project(own_door)):
        body = {"model": "fake", "prompt": "x", "max_tokens": 1, "transom": {"seed": seed}}
        reply = await own_door.client.post("/v1/completions", json=body, headers=who)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert (error["code"], error["param"]) == ("unknown_commitment", "transom.seed.commitment")
        assert "POST /v1/seeds" in error["message"]


@pytest.mark.parametrize(("prompt", "status"), [([], 400), ("x", 503)], ids=["empty", "busy"])
async def test_a_request_that_is_refused_uses_up_no_commitment(own_door, monkeypatch, prompt, status):
    def admit(_project, _sequences):
        raise EngineBusy("too many wait")

    seed = await promised(own_door)
    monkeypatch.setattr(own_door.backend, "admit", admit)
    body = {"model": "fake", "prompt": prompt, "max_tokens": 1, "transom": {"seed": seed}}
    assert (await own_door.post("/v1/completions", body)).status_code == status
    monkeypatch.undo()
    await own_door.complete(max_tokens=1, transom={"seed": seed})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"seed": 7}, "seed"),
        ({"transom": {"seed": {"commitment": ZEROS}}}, "transom.seed.nonce"),
        ({"transom": {"seed": {"commitment": "0", "nonce": "22" * 16}}}, "transom.seed.commitment"),
        ({"transom": {"seed": {"commitment": ZEROS, "nonce": "22"}}}, "transom.seed.nonce"),
        (
            {"transom": {"seed": {"commitment": ZEROS, "nonce": "2" * 33}}},
            "transom.seed.nonce",
        ),
        ({"transom": {"seed": 7}}, "transom.seed"),
    ],
    ids=["two", "no-nonce", "no-commitment", "short", "odd", "number"],
)
async def test_what_is_no_joint_seed_is_refused_by_its_field(own_door, more, param):
    body = {"model": "fake", "prompt": "x", "transom": {"seed": await promised(own_door)}} | more
    reply = await own_door.post("/v1/completions", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("count", [0, 101, -1, "2", None, 1.5])
async def test_so_many_commitments_at_once(own_door, count):
    reply = await own_door.post("/v1/seeds", {"count": count})
    assert reply.status_code == (200 if count is None else 400)


async def test_commitments_need_a_key(own_door):
    del own_door.client.headers["authorization"]
    assert (await own_door.post("/v1/seeds", {})).status_code == 401
