"""Whatever byte is changed in a log, a record or a receipt: verification says so."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.public_log.evidence import make_evidence
from benchmarks.public_log.tampering import tamper


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return make_evidence(tmp_path_factory.mktemp("evidence"), 600)


def test_what_was_not_changed_holds(evidence):
    for path in (evidence.record, evidence.receipt, evidence.log.folder / "checkpoint"):
        assert list(evidence.faults(path)) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_any_random_byte_that_is_changed_is_found(evidence, seed):
    outcome = tamper(evidence, 320, seed)
    assert outcome.missed == []
    assert len(outcome.tried) == 8
    assert set(outcome.tried.values()) == {40}
    test_what_was_not_changed_holds(evidence)


SPELLINGS = [
    (b'","', b'", "'),
    (b"}\n", b"} "),
    (b"\n", b"\r"),
    (b'"payloadType":"application', b'"payloadTypf":"application'),
    (b'"payloadType":', b'"more":1,"payloadType":'),
    (b'{"id":', b'{"id":"x","id":'),
    (b"-0.10000000149011612", b"-0.10000000149011613"),
    (b"-0.10000000149011612", b"-0.1"),
    (b"-2.25", b"-2.250"),
    (b'"-inf"', b'"-Inf"'),
    (b"1.2345678901234567", b"1.2345678901234568"),
    (b"1e-7", b"1E-7"),
    (b"Blau.", b"Bl\\u0061u."),
    (b'"openings":{', b'"openings":{"more":1,'),
    (b'"sequences":[{', b'"sequences":[{"more":1,'),
]


def faults_with(evidence, spoiled):
    """What is said of the record with other bytes."""
    whole = evidence.record.read_bytes()
    assert spoiled != whole
    evidence.record.write_bytes(spoiled)
    try:
        return list(evidence.faults(evidence.record))
    finally:
        evidence.record.write_bytes(whole)


@pytest.mark.parametrize(("old", "new"), SPELLINGS, ids=range(len(SPELLINGS)))
def test_a_record_in_another_spelling_is_not_taken_for_the_one_that_was_saved(evidence, old, new):
    assert faults_with(evidence, evidence.record.read_bytes().replace(old, new, 1))


def test_salts_have_one_spelling(evidence):
    whole = evidence.record.read_bytes()
    salt = re.search(rb'"salt":"([0-9a-f]{64})"', whole)[1]
    assert "openings that do not open" in faults_with(evidence, whole.replace(salt, salt.upper()))[0]


def test_bits_of_base64_that_stand_for_nothing_are_read_too(evidence):
    whole = evidence.record.read_bytes()
    last = re.search(rb'"sig":"[^"]*(.)=="', whole).start(1)
    # The last four bits of this letter are not part of the 64 bytes.
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = letters[letters.index(whole[last]) | 1]
    assert "is not one" in faults_with(evidence, whole[:last] + bytes([other]) + whole[last + 1 :])[0]


def test_a_record_is_read_as_a_terminal_shows_it(evidence):
    shown = json.dumps(json.loads(evidence.record.read_bytes()), indent=2)
    assert faults_with(evidence, shown.encode() + b"\n") == []
