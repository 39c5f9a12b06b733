"""What was written inside is on record: every write as it was asked for, behind one commitment."""

import json

import pytest
from made_records import WRITES, record

from transom.records.reading import read_request
from transom.schema.openings import committed, verify_openings


def with_writes(openings, writes):
    """The same openings, with the same salt, about other writes."""
    return openings | {"writes": openings["writes"] | {"json": json.dumps(writes, separators=(",", ":"))}}


def test_they_are_committed_to_and_read_back():
    statement, openings = record()
    assert statement["predicate"]["request"]["writes"] == committed("writes", openings["writes"])
    assert verify_openings(statement, openings) == []
    assert read_request(statement, openings).writes == list(WRITES)


def test_what_was_written_is_not_in_the_statement():
    statement, _ = record()
    assert "resid_post" not in json.dumps(statement)


@pytest.mark.parametrize(
    "writes",
    [
        WRITES[:1],
        WRITES[::-1],
        [],
        [WRITES[0] | {"scale": 4.5}, WRITES[1]],
        [WRITES[0] | {"value": {"shape": [2], "sha256": "sha256:1"}}, WRITES[1]],
    ],
    ids=["without the last", "swapped", "none", "another scale", "another tensor"],
)
def test_other_writes_are_found(writes):
    statement, openings = record()
    assert verify_openings(statement, with_writes(openings, writes)) == ["request.writes"]


def test_they_cannot_be_taken_out():
    statement, openings = record()
    assert verify_openings(statement, openings | {"writes": None}) == ["request.writes"]
    assert verify_openings(statement, {n: o for n, o in openings.items() if n != "writes"}) == [
        "request.writes"
    ]


def test_where_nothing_was_written_it_is_null_and_nothing_can_be_slipped_in():
    statement, openings = record(writes=None)
    assert statement["predicate"]["request"]["writes"] is openings["writes"] is None
    assert verify_openings(statement, openings) == []
    assert read_request(statement, openings).writes is None
    _, others = record()
    assert verify_openings(statement, openings | {"writes": others["writes"]}) == ["request.writes"]


def test_another_opening_never_passes_for_the_writes():
    statement, openings = record()
    for name in ("request", "messages", "stop", "logit_bias", "tensors"):
        statement["predicate"]["request"]["writes"] = committed(name, openings[name])
        assert verify_openings(statement, openings | {"writes": openings[name]}) == ["request.writes"]
