"""A record cannot be dated before, or after, what witnesses have seen of its log."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.client.dating import PROMISED, misdated
from transom.schema.record import rfc3339
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.notes import COSIGNATURE, Signer
from transom.tlog.policies import Policy

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
LOG = Signer("log.example/1", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESSES = [
    Signer(f"w{n}.example", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), COSIGNATURE)
    for n in (1, 2)
]
KEYS = [str(witness.verifier) for witness in WITNESSES]
BOTH = f"log {LOG.verifier}\nwitness a {KEYS[0]}\nwitness b {KEYS[1]}\ngroup g all a b\nquorum g\n"
POLICY = Policy.parse(BOTH)


def head(size, *minutes):
    """A checkpoint that witnesses cosigned so many minutes after noon."""
    checkpoint = Checkpoint(LOG.name, size, bytes([size]) * 32)
    note = checkpoint.signed(LOG)
    for witness, minute in zip(WITNESSES, minutes, strict=False):
        time = int((NOON + timedelta(minutes=minute)).timestamp())
        note = note.signed(replace(witness, clock=lambda time=time: time).sign(checkpoint.text))
    return checkpoint, note


def faults(minute, *heads, index=5, policy=POLICY):
    answered = rfc3339(NOON + timedelta(minutes=minute))
    return list(misdated(answered, index, heads, policy))


def test_an_honest_time_lies_between_what_was_seen():
    assert faults(10, head(5, 9, 9), head(6, 11, 11)) == []
    # A minute is promised, and clocks differ.
    assert faults(9, head(5, 10, 10), head(6, 8, 8)) == []
    assert PROMISED == 60


def test_who_was_not_in_the_log_yet_was_not_answered_earlier():
    (told,) = faults(-10, head(5, 9, 9), head(6, 11, 11))
    assert "and was not in the log at 2026-11-28T12:09:00+00:00: it is dated back" in told
    # The newest checkpoint without it counts.
    (told,) = faults(5, head(2, 1, 1), head(5, 9, 9))
    assert "12:09:00+00:00" in told


def test_who_was_in_the_log_was_not_answered_later():
    (told,) = faults(30, head(5, 9, 9), head(6, 11, 12), head(9, 20, 20))
    assert told.endswith("and was in the log by 2026-11-28T12:12:00+00:00")


def test_one_witness_alone_puts_nobody_in_the_wrong():
    assert faults(-10, head(5, 9)) == []
    assert faults(-10, head(5, 9, -10)) == []
    assert faults(30, head(6, 11)) == []
    assert faults(30, head(6, 11, 30)) == []
    (told,) = faults(-10, head(5, 9), policy=Policy.parse(BOTH.replace("all", "any")))
    assert "12:09:00+00:00" in told


@pytest.mark.parametrize("policy", ["quorum none", f"witness a {KEYS[0]}\nquorum a"], ids=["none", "other"])
def test_who_is_not_in_the_policy_says_nothing(policy):
    stranger = Signer(WITNESSES[0].name, Ed25519PrivateKey.from_private_bytes(b"s" * 32), COSIGNATURE)
    checkpoint = Checkpoint(LOG.name, 5, bytes(32))
    note = checkpoint.signed(LOG).signed(stranger.sign(checkpoint.text))
    believed = Policy.parse(f"log {LOG.verifier}\n{policy}\n")
    assert faults(-600, (checkpoint, note), policy=believed) == []
