"""A record of an earlier version is read and replayed by the server of today."""

from __future__ import annotations

import base64
import json

import pytest

from tests.http.test_records import stored, tamper
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.openings import verify_openings

pytestmark = pytest.mark.anyio

MEASURED = ("measures", "prompt_measures", "distributions", "prompt_distributions")
"""What version 3 brought."""


def as_version(version, statement, openings) -> None:
    """Make a record of today what it would have been; in place."""
    statement["predicateType"] = f"urn:transom:record:v{version}"
    del statement["predicate"]["request"]["writes"], openings["writes"]
    if version < 4:
        del statement["predicate"]["tensors"], openings["tensors"]
    if version < 3:
        sampling, evidence = statement["predicate"]["request"]["sampling"], statement["predicate"]["evidence"]
        for part in (sampling, *evidence, *openings["sequences"]):
            for name in MEASURED:
                del part[name]


async def age(door, record_id, version) -> None:
    """Put a record of an earlier version in the place of one of today."""
    record = await stored(door, record_id)
    statement, openings = json.loads(record.statement), json.loads(record.openings)
    as_version(version, statement, openings)
    raw = canonical_bytes(statement)
    await tamper(door, record_id, statement=raw, digest=sha256(raw), openings=json.dumps(openings).encode())


ASKED = {
    "prompt": [5, 6, 7],
    "max_tokens": 6,
    "n": 2,
    "logprobs": 2,
    "stop": ["never"],
    "logit_bias": {"5": 1},
}
MEASURING = {"measures": {"entropy": True}, "distributions": [1], "prompt_distributions": [2]}


@pytest.mark.parametrize(("version", "more"), [(2, {}), (3, {}), (3, MEASURING), (4, MEASURING)], ids=str)
async def test_it_is_read_verified_and_replayed_exactly(own_door, version, more):
    answer = await own_door.complete(**ASKED, **more)
    await age(own_door, answer["id"], version)
    record = await own_door.record(answer["id"])
    assert record["statement"]["predicateType"] == f"urn:transom:record:v{version}"
    assert sha256(base64.b64decode(record["envelope"]["payload"])) == record["digest"]
    assert verify_openings(record["statement"], record["openings"]) == []
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("EXACT", None)
    assert report["tokens"] == 12


async def test_a_measure_that_comes_out_otherwise_is_found_in_version_3_too(own_door):
    answer = await own_door.complete(**ASKED, measures={"surprisal": True})
    await age(own_door, answer["id"], 3)
    record = await stored(own_door, answer["id"])
    openings = json.loads(record.openings)
    openings["sequences"][1]["measures"][0][0] += 0.5
    await tamper(own_door, answer["id"], openings=json.dumps(openings).encode())
    report = await own_door.replay(answer["id"])
    assert (report["level"], report["reason"]) == ("OUTSIDE", "OPENING evidence[1].measures")


async def test_a_record_of_today_in_which_nothing_was_read_or_written_says_so(own_door):
    record = await own_door.record((await own_door.complete(max_tokens=1))["id"])
    assert record["statement"]["predicateType"] == "urn:transom:record:v6"
    assert record["statement"]["predicate"]["tensors"] is record["openings"]["tensors"] is None
    assert record["statement"]["predicate"]["request"]["writes"] is record["openings"]["writes"] is None
