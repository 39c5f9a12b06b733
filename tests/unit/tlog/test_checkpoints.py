"""Checkpoints, proofs in files, and policies."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import NotVerified
from transom.schema.merkle import leaf_hash, node_hash
from transom.tlog.checkpoints import Checkpoint, cosigners, open_checkpoint
from transom.tlog.notes import COSIGNATURE, Signer
from transom.tlog.policies import Policy
from transom.tlog.proofs import Proof

LOG = Signer("log.example", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
OTHER = Signer("other.example", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
WITNESSES = [
    Signer(f"w{n}.example", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), COSIGNATURE, lambda: 1.7e9)
    for n in range(6)
]
HEAD = Checkpoint("log.example", 3, b"r" * 32)


def test_a_checkpoint_is_read_as_it_was_signed():
    head = Checkpoint("log.example", 0, b"r" * 32, ("more", "and more"))
    note = head.signed(LOG)
    assert open_checkpoint(str(note), LOG.verifier) == (head, note)


def test_whoever_has_not_signed_is_not_the_log():
    with pytest.raises(NotVerified, match=r"no signature of 'log\.example'"):
        open_checkpoint(str(HEAD.signed(OTHER)), LOG.verifier)
    borrowed = Checkpoint("other.example", 3, b"r" * 32).signed(LOG)
    with pytest.raises(NotVerified, match=r"is of 'other\.example'"):
        open_checkpoint(str(borrowed), LOG.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        "o\n01\nAAAA\n",
        "o\n-1\n{root}\n",
        "o\n1\n{root}",
        "o\n\n{root}\n",
        "\n1\n{root}\n",
        "o\n1\nAAAA\n",
        "o\n99999999999999999\n{root}\n",
        "o\n1\n{root}\n\nx\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text):
    root = HEAD.text.split("\n")[2]
    with pytest.raises(NotVerified):
        Checkpoint.parse(text.format(root=root))


def test_cosigners_are_those_who_are_known():
    note = HEAD.signed(LOG).signed(*(witness.sign(HEAD.text) for witness in WITNESSES[:3]))
    known = [witness.verifier for witness in WITNESSES[1:5]]
    assert cosigners(note, known) == {known[0]: 1700000000, known[1]: 1700000000}


# Proofs.

FIRST = "c2sp.org/tlog-proof@v1"


def proof(extra=None):
    leaves = [leaf_hash(entry) for entry in (b"a", b"b", b"c")]
    left = node_hash(leaves[0], leaves[1])
    head = Checkpoint("log.example", 3, node_hash(left, leaves[2]))
    return Proof(1, (leaves[0], leaves[2]), str(head.signed(LOG)), extra)


@pytest.mark.parametrize("extra", [None, b"", b"some data"])
def test_a_proof_is_read_as_it_was_written_and_holds(extra):
    again = Proof.parse(str(proof(extra)))
    assert again == proof(extra)
    head, _ = again.verify(b"b", LOG.verifier)
    assert head.size == 3
    with pytest.raises(NotVerified):
        again.verify(b"c", LOG.verifier)
    with pytest.raises(NotVerified):
        again.verify(b"b", OTHER.verifier)


def test_a_proof_of_the_only_entry_has_no_hashes():
    only = Proof(0, (), str(Checkpoint("log.example", 1, leaf_hash(b"a")).signed(LOG)))
    assert Proof.parse(str(only)).verify(b"a", LOG.verifier)[0].size == 1


def test_any_byte_of_a_proof_that_is_changed_is_found():
    whole = str(proof()).encode()
    for place in range(len(whole)):
        for change in (1, 0x20):
            spoiled = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
            with pytest.raises(NotVerified):
                Proof.parse(spoiled.decode(errors="replace")).verify(b"b", LOG.verifier)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x" * (2 << 20), f"{FIRST}\n", f"{FIRST}\n\nx", "c2sp.org/tlog-proof@v2\nindex 0\n\nx"),
        *(f"{FIRST}\nindex 00\n\nx", f"{FIRST}\nindex 1\nAAAA\n\nx"),
        f"{FIRST}\nindex 1\n" + 64 * f"{'A' * 43}=\n" + "\nx",
    ],
)
def test_what_is_no_proof_is_refused(text):
    with pytest.raises(NotVerified):
        Proof.parse(text)


# Policies.

KEYS = {f"w{n}": str(witness.verifier) for n, witness in enumerate(WITNESSES)} | {"log": str(LOG.verifier)}


def policy(text):
    return Policy.parse(text.format(**KEYS))


TWO_LEVELS = """
# comment
 log {log}  https://log.example
witness a1 {w0}
witness a2 {w1}\thttps://w1.example
witness a3 {w2}
group a 2 a1 a2 a3
witness b1 {w3}
witness b2 {w4}
group b any b1 b2
group both all a b
quorum both
"""


@pytest.mark.parametrize(
    ("cosigned", "enough"),
    [
        ((), False),
        ((0, 1, 2), False),
        ((3, 4), False),
        ((0, 3), False),
        ((0, 2, 4), True),
        ((0, 1, 2, 3), True),
    ],
)
def test_a_quorum_is_counted_group_by_group(cosigned, enough):
    note = HEAD.signed(LOG).signed(*(WITNESSES[n].sign(HEAD.text) for n in cosigned))
    if enough:
        assert policy(TWO_LEVELS).verify(str(note))[0] == HEAD
    else:
        with pytest.raises(NotVerified, match="no quorum of 'both'"):
            policy(TWO_LEVELS).verify(str(note))


def test_groups_may_be_as_deep_as_a_policy_is_long():
    groups = "\n".join(f"group g{depth} any g{depth - 1}" for depth in range(1, 990))
    deep = policy(f"log {{log}}\nwitness a {{w0}}\ngroup g0 any a\n{groups}\nquorum g989")
    signed = HEAD.signed(LOG)
    assert deep.verify(str(signed.signed(WITNESSES[0].sign(HEAD.text))))[0] == HEAD
    with pytest.raises(NotVerified, match="no quorum"):
        deep.verify(str(signed))


def test_of_several_logs_that_signed_the_one_that_is_named_counts():
    other = Signer("log.example/2", Ed25519PrivateKey.generate())
    note = str(HEAD.signed(other).signed(LOG.sign(HEAD.text)))
    assert policy(f"log {other.verifier}\nlog {{log}}\nquorum none").verify(note)[0] == HEAD
    with pytest.raises(NotVerified, match="is of"):
        policy(f"log {other.verifier}\nquorum none").verify(note)


def test_a_policy_may_need_no_witness_but_needs_a_log():
    assert policy("log {log}\nquorum none").verify(str(HEAD.signed(LOG)))[0] == HEAD
    with pytest.raises(NotVerified, match="no log of the policy"):
        policy("quorum none").verify(str(HEAD.signed(LOG)))


def test_a_broken_cosignature_of_a_known_witness_is_no_missing_one():
    note = HEAD.signed(LOG).signed(WITNESSES[0].sign("another text\n"))
    with pytest.raises(NotVerified, match="does not fit"):
        policy("log {log}\nwitness a {w0}\nquorum none").verify(str(note))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("log {log}", "no line that begins with quorum"),
        ("quorum none\nquorum none", "line 2.*said before"),
        ("quorum a", "no line before names 'a'"),
        ("witness none {w0}\nquorum none", "taken"),
        ("witness a {w0}\nwitness a {w1}\nquorum none", "line 2.*taken"),
        ("witness a {w0}\nwitness b {w0}\nquorum none", "key of another"),
        ("witness a {log}\nquorum none", "none for cosignatures"),
        ("log {w0}\nquorum none", "one for cosignatures"),
        ("log {log}\nlog {log}\nquorum none", "key of another"),
        ("witness a {w0}\ngroup g 2 a\nquorum g", "up to 1"),
        ("witness a {w0}\ngroup g 0 a\nquorum g", "not all, any"),
        ("witness a {w0}\ngroup g any a a\nquorum g", "member twice"),
        ("witness a {w0}\ngroup g any a\ngroup h any a\nquorum g", "member twice"),
        ("group g any none\nquorum none", "no line before"),
        ("witness a {w0}\ngroup g any\nquorum none", "no line of a policy"),
        ("log {log} url more\nquorum none", "no line of a policy"),
        ("quorum none\r", "control character"),
        ("log x\nquorum none", "no verifier key"),
    ],
)
def test_what_is_no_policy_is_refused_by_its_line(text, reason):
    with pytest.raises(NotVerified, match=reason):
        policy(text)
