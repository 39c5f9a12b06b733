"""What was read inside is on record: name, type, shape, axes and digest, behind one commitment."""

import dataclasses
import json

import pytest
from made_records import TENSORS, record

from transom.records.reading import read_request
from transom.schema.openings import committed, verify_openings

MANIFEST = [
    ["clean.heads", "float32", [2, 3, 64], ["position", "head", "unit"], "sha256:" + "c" * 64],
    ["best.ids", "int32", [], [], "sha256:" + "1" * 64],
]


def spelled(manifest):
    return json.dumps(manifest, separators=(",", ":"))


def with_manifest(openings, manifest):
    """The same openings, with the same salt, about other tensors."""
    return openings | {"tensors": openings["tensors"] | {"json": spelled(manifest)}}


def test_the_manifest_is_committed_to():
    statement, openings = record()
    assert openings["tensors"]["json"] == spelled(MANIFEST)
    assert statement["predicate"]["tensors"] == committed("tensors", openings["tensors"])
    assert verify_openings(statement, openings) == []


def test_it_reads_back():
    assert read_request(*record()).tensors == MANIFEST


@pytest.mark.parametrize(
    ("index", "other"),
    [
        (0, "clean.head"),
        (1, "int32"),
        (2, [2, 3, 65]),
        (2, [3, 2, 64]),
        (2, [6, 64]),
        (3, ["position", "head", "units"]),
        (3, ["head", "position", "unit"]),
        (4, "sha256:" + "c" * 63 + "d"),
        (4, "c" * 64),
    ],
    ids=str,
)
def test_a_change_of_one_tensor_is_found(index, other):
    statement, openings = record()
    first, second = MANIFEST
    changed = [*first[:index], other, *first[index + 1 :]]
    assert verify_openings(statement, with_manifest(openings, [changed, second])) == ["tensors"]


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST[:1], MANIFEST[1:], MANIFEST[::-1], [*MANIFEST, MANIFEST[0]], [], None],
    ids=["without the last", "without the first", "swapped", "one twice", "none", "null"],
)
def test_a_tensor_cannot_be_left_out_added_or_moved(manifest):
    statement, openings = record()
    assert verify_openings(statement, with_manifest(openings, manifest)) == ["tensors"]


def test_tensors_cannot_be_taken_out():
    statement, openings = record()
    assert verify_openings(statement, openings | {"tensors": None}) == ["tensors"]
    assert verify_openings(statement, {n: o for n, o in openings.items() if n != "tensors"}) == ["tensors"]


def test_where_nothing_was_asked_it_is_null_and_nothing_can_be_slipped_in():
    statement, openings = record(tensors=None)
    assert statement["predicate"]["tensors"] is openings["tensors"] is None
    assert verify_openings(statement, openings) == []
    assert read_request(statement, openings).tensors is None
    _, others = record()
    for slipped in (others["tensors"], {"salt": "00" * 32, "json": "[]"}):
        assert verify_openings(statement, openings | {"tensors": slipped}) == ["tensors"]


def test_a_program_that_returned_nothing_is_not_one_that_was_not_asked():
    statement, openings = record(tensors=())
    assert openings["tensors"]["json"] == "[]"
    assert verify_openings(statement, openings) == []
    assert read_request(statement, openings).tensors == []
    assert verify_openings(statement, openings | {"tensors": None}) == ["tensors"]


def test_another_opening_never_passes_for_the_tensors():
    statement, openings = record()
    for name in ("request", "messages", "stop", "logit_bias"):
        statement["predicate"]["tensors"] = committed(name, openings[name])
        assert verify_openings(statement, openings | {"tensors": openings[name]}) == ["tensors"]


def test_the_same_tensors_twice_share_no_commitment():
    (one, _), (two, _) = record(), record()
    assert one["predicate"]["tensors"] != two["predicate"]["tensors"]


def test_names_of_any_spelling_survive():
    odd = dataclasses.replace(TENSORS[0], name='half a pair: \ud83d", \u2028')
    statement, openings = record(tensors=[odd])
    assert verify_openings(statement, openings) == []
    assert read_request(statement, openings).tensors[0][0] == odd.name
