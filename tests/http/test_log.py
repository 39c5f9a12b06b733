"""The public log over HTTP: anybody reads it, and each record has a receipt that needs no server."""

from __future__ import annotations

import asyncio
import base64

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.http.test_records import other_project
from transom.errors import NotVerified
from transom.records.signing import AHEAD
from transom.schema.canonical import sha256
from transom.schema.envelopes import PublicKey
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import COSIGNED, check_files
from transom.tlog.proofs import Proof
from transom.tlog.tiles import ENTRIES, split_entries, tile_at

pytestmark = pytest.mark.anyio


async def receipt_of(door, record_id):
    """The receipt, as soon as there is one."""
    for _ in range(100):
        reply = await door.client.get(f"/v1/records/{record_id}/receipt")
        if reply.status_code == 200:
            return reply
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "receipt_pending"
        await asyncio.sleep(0.05)
    raise AssertionError("there was no receipt in time")


async def test_a_receipt_proves_that_the_record_is_in_the_log(own_door):
    records = [(await own_door.complete(max_tokens=1))["id"] for _ in range(3)]
    for record_id in records:
        reply = await receipt_of(own_door, record_id)
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        proof = Proof.parse(reply.text)
        record = await own_door.record(record_id)
        payload = base64.b64decode(record["envelope"]["payload"])
        entry = Entry("record", sha256(payload))
        head, _ = proof.verify(entry.content, own_door.house.log.key)
        assert head.size > proof.index
        with pytest.raises(NotVerified):
            proof.verify(Entry("record", sha256(payload + b" ")).content, own_door.house.log.key)


async def test_the_rules_of_access_are_a_document_of_the_log(own_door):
    del own_door.client.headers["authorization"]
    programme = (await own_door.client.get("/v1/programme")).json()
    reply = await own_door.client.get(f"/log/documents/{programme['digest']}")
    assert reply.status_code == 200
    assert sha256(reply.content) == programme["digest"]
    assert reply.json()["order"] == [tier["name"] for tier in programme["tiers"]]
    assert reply.json()["programme"]["name"] == programme["name"]


async def test_anybody_reads_the_log_and_finds_it_whole(own_door):
    record_id = (await own_door.complete(max_tokens=1))["id"]
    await receipt_of(own_door, record_id)
    del own_door.client.headers["authorization"]
    reply = await own_door.client.get("/log/checkpoint")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    head, _ = open_checkpoint(reply.content, own_door.house.log.key)
    bundle = tile_at(ENTRIES, 0, head.size)
    reply = await own_door.client.get(f"/log/{bundle.path}")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "immutable" in reply.headers["cache-control"]
    entries = [Entry.parse(content) for content in split_entries(bundle, reply.content)]
    # Who signs, and what answers, were logged before the answer.
    assert [entry.kind for entry in entries] == ["key", "policy", "deployment", "record"]
    assert list(check_files(own_door.house.log)) == []


async def test_anybody_reads_what_is_served_and_who_signs(own_door):
    del own_door.client.headers["authorization"]
    deployment = own_door.backend.served.deployment
    reply = await own_door.client.get(f"/log/documents/{deployment.digest}")
    assert reply.status_code == 200, reply.text
    assert sha256(reply.content) == deployment.digest
    assert reply.json()["profile"] == deployment.profile.model_dump()
    (key,) = (await own_door.client.get("/.well-known/transom-keys")).json()["records"]
    document = PublicKey(**key).document
    reply = await own_door.client.get(f"/log/documents/{sha256(document)}")
    assert reply.content == document
    assert set(reply.json()) == {"key", "keyid", "valid_from"}


async def test_a_record_is_no_public_document(own_door):
    record_id = (await own_door.complete(max_tokens=1))["id"]
    digest = (await own_door.record(record_id))["digest"]
    reply = await own_door.client.get(f"/log/documents/{digest}")
    assert reply.status_code == 404
    assert digest in reply.json()["error"]["message"]


async def test_how_far_the_log_is_stands_in_the_metrics(own_door):
    await receipt_of(own_door, (await own_door.complete(max_tokens=1))["id"])
    async with asyncio.timeout(60):
        # It is looked at each second.
        while own_door.house.progress().published < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    lines = (await own_door.client.get("/metrics")).text.splitlines()
    assert 'transom_log_entries{state="kept"} 4.0' in lines
    assert 'transom_log_entries{state="published"} 4.0' in lines
    assert "transom_log_stands 0.0" in lines


@pytest.mark.parametrize(
    "path",
    [
        *(
            "tile/0/001",
            "tile/0/000.p/255",
            "tile/9/000",
            "tile/0/0",
            "tile/entries/x001/000",
            "tile/",
            ".lock",
        ),
        *(".lock", "tile/%2e%2e/log.key", "tile/0/..%2f..%2f..%2flog.key"),
    ],
)
async def test_there_is_nothing_else(own_door, path):
    await receipt_of(own_door, (await own_door.complete(max_tokens=1))["id"])
    assert (await own_door.client.get(f"/log/{path}")).status_code == 404


async def test_a_receipt_is_for_the_owner(own_door):
    record_id = (await own_door.complete(max_tokens=1))["id"]
    await receipt_of(own_door, record_id)
    headers = await other_project(own_door)
    reply = await own_door.client.get(f"/v1/records/{record_id}/receipt", headers=headers)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] != "receipt_pending"


async def test_the_keys_are_told_to_anybody_and_verify_a_record(own_door):
    record = await own_door.record((await own_door.complete(max_tokens=1))["id"])
    del own_door.client.headers["authorization"]
    keys = (await own_door.client.get("/.well-known/transom-keys")).json()
    assert keys["log"] == str(own_door.house.log.key)
    (key,) = keys["records"]
    (signature,) = record["envelope"]["signatures"]
    assert signature["keyid"] == key["keyid"]
    assert key["valid_until"] is None
    payload = base64.b64decode(record["envelope"]["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key["key"]))
    public.verify(base64.b64decode(signature["sig"]), signed)


async def test_a_new_key_signs_and_the_old_one_is_still_told(own_door):
    before = await own_door.record((await own_door.complete(max_tokens=1))["id"])
    own_door.house.signing.rotate(own_door.house.now() - 2 * AHEAD)
    after = await own_door.record((await own_door.complete(max_tokens=1))["id"])
    keys = (await own_door.client.get("/.well-known/transom-keys")).json()["records"]
    assert [key["keyid"] for key in keys] == [
        record["envelope"]["signatures"][0]["keyid"] for record in (before, after)
    ]
    assert keys[0]["valid_until"] == keys[1]["valid_from"]


async def test_the_schema_of_statements_is_told_to_anybody_and_a_record_is_as_it_says(own_door):
    record = await own_door.record((await own_door.chat(max_tokens=2, logprobs=True))["id"])
    del own_door.client.headers["authorization"]
    version = record["statement"]["predicateType"].rpartition(":")[2]
    reply = await own_door.client.get(f"/schema/record-{version}.json")
    assert reply.status_code == 200
    jsonschema.Draft202012Validator(reply.json()).validate(record["statement"])
    assert (await own_door.client.get("/schema/record-v0.json")).status_code == 404


async def test_a_receipt_is_made_under_a_cosigned_checkpoint_where_there_is_one(own_door):
    first = (await own_door.complete(max_tokens=1))["id"]
    await receipt_of(own_door, first)
    log = own_door.house.log
    cosigned = log.note()
    second = (await own_door.complete(max_tokens=1))["id"]
    await receipt_of(own_door, second)
    assert log.note() != cosigned
    (log.folder / COSIGNED).write_bytes(cosigned)
    proofs = [Proof.parse((await receipt_of(own_door, each)).text) for each in (first, second)]
    assert [proof.checkpoint.encode() == cosigned for proof in proofs] == [True, False]
    for record_id, proof in zip((first, second), proofs, strict=True):
        record = await own_door.record(record_id)
        proof.verify(Entry("record", record["digest"]).content, log.key)
