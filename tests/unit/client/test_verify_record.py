"""A record is checked against itself: one change anywhere is found."""

from __future__ import annotations

import base64
import json

import pytest
from client_standin import record_view

from transom.client import verify_record
from transom.schema.canonical import canonical_bytes, sha256
from transom.schema.record import Envelope


def test_a_record_as_the_server_made_it_has_no_faults() -> None:
    assert verify_record(record_view()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "rec_2"),
        ("created", "2026-01-31T09:05:00.000001Z"),
        ("project", "other"),
        ("model", "big"),
        ("deployment", "sha256:00"),
        ("endpoint", "/v1/completions"),
        ("status", "failed"),
        ("sequence", 5),
    ],
)
def test_a_summary_that_says_otherwise_is_found(field, value) -> None:
    assert f"{field} is not the statement's" in verify_record(record_view().model_copy(update={field: value}))


def test_another_digest_is_found() -> None:
    view = record_view().model_copy(update={"digest": "sha256:" + "00" * 32})
    assert verify_record(view) == ["digest is not that of the payload"]


def test_another_statement_is_found() -> None:
    view = record_view()
    changed = json.loads(json.dumps(view.statement))
    changed["predicate"]["randomness"]["seed"] = "4"
    assert verify_record(view.model_copy(update={"statement": changed})) == ["payload is not the statement"]


def test_an_output_that_is_not_the_subjects_is_found() -> None:
    view = record_view()
    changed = json.loads(json.dumps(view.statement))
    changed["predicate"]["output"][0]["tokens"] = 2
    found = verify_record(view.model_copy(update={"statement": changed}))
    assert found == ["payload is not the statement", "subject is not the record's output"]


def retyped(view, **types):
    """The same record with other types, consistent in itself."""
    statement = view.statement | types
    payload = canonical_bytes(statement)
    envelope = Envelope(payload=base64.b64encode(payload).decode())
    changes = {"statement": statement, "envelope": envelope, "digest": sha256(payload)}
    return view.model_copy(update=changes)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_record_of_an_earlier_version_has_no_faults(version) -> None:
    assert verify_record(retyped(record_view(), predicateType=f"urn:transom:record:v{version}")) == []


@pytest.mark.parametrize(
    "types", [{"predicateType": "urn:transom:record:v7"}, {"predicateType": None}, {"_type": "x"}], ids=str
)
def test_a_statement_of_another_type_is_found(types) -> None:
    assert verify_record(retyped(record_view(), **types)) == ["statement has another type"]


def test_a_record_whose_openings_were_destroyed_agrees_with_itself_all_the_same() -> None:
    assert verify_record(record_view().model_copy(update={"openings": None})) == []


def test_a_payload_that_is_not_canonical_is_found() -> None:
    view = record_view()
    payload = json.dumps(view.statement, indent=1).encode()
    envelope = Envelope(payload=base64.b64encode(payload).decode())
    loose = view.model_copy(update={"envelope": envelope, "digest": sha256(payload)})
    assert verify_record(loose) == ["payload is not the statement"]


def test_a_record_of_nothing_is_all_faults_and_no_traceback() -> None:
    view = record_view()
    empty = view.model_copy(update={"statement": {}, "envelope": Envelope(payload="*")})
    assert len(verify_record(empty)) == 12
