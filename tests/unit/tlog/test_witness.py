"""A witness: what it cosigns, what it refuses, and that it knows what it has cosigned, whatever breaks."""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import Checkpoint as TheirCheckpoint

from tests.unit.tlog.growing import LOG, OTHER, STRANGER, Clock, note, submission, witness_signer
from transom.errors import LogBroken, NotVerified
from transom.schema.merkle import root
from transom.tlog.checkpoints import Checkpoint, open_checkpoint
from transom.tlog.notes import Note, Signature, encode
from transom.tlog.submissions import (
    MOST_BYTES,
    Submission,
    read_signatures,
    read_size,
    spell_signatures,
    spell_size,
)
from transom.tlog.witness import Refusal, Refused, Witness


def followed():
    return [LOG.verifier]


@pytest.fixture
def witness(tmp_path):
    with Witness(tmp_path, witness_signer(), followed) as made:
        yield made


def cosigned(witness, content):
    answer = witness.add_checkpoint(content)
    assert isinstance(answer, Signature), answer
    witness.key.verify(Note.parse(Submission.parse(content).note).text, answer)
    return answer


def refused(witness, content):
    answer = witness.add_checkpoint(content)
    assert isinstance(answer, Refused)
    return answer.reason


def test_a_log_that_grows_is_cosigned_each_time(witness):
    for old, new in [(0, 1), (1, 5), (5, 5), (5, 300), (300, 1000)]:
        cosigned(witness, submission(old, new))
        assert witness.newest(LOG.name).size == new


def test_an_empty_log_is_cosigned_as_what_it_is(witness):
    cosigned(witness, submission(0, 0))
    lie = Checkpoint(LOG.name, 0, b"r" * 32).signed(LOG)
    assert refused(witness, str(Submission(0, (), str(lie))).encode()) is Refusal.CONFLICT
    cosigned(witness, submission(0, 3))


def test_another_implementation_takes_the_cosignature(witness):
    signature = cosigned(witness, submission(0, 300))
    whole = note(300) + spell_signatures([signature])
    head = TheirCheckpoint.from_text(whole)
    keys = VkeySet(*(Vkey.from_string(str(key)) for key in (LOG.verifier, witness.key)))
    assert {key.name for key, _ in keys.verify(head.signatures, head)} == {LOG.name, "w.example/1"}


# Refusals.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"old 0\n",
        b"old 0\n\n",
        b"old 00\n\n" + note(3).encode(),
        b"old -1\n\n" + note(3).encode(),
        b"old +1\n\n" + note(3).encode(),
        b"old 0 \n\n" + note(3).encode(),
        b"Old 0\n\n" + note(3).encode(),
        b"old 0\r\n\r\n" + note(3).encode(),
        b"old 99999999999999999\n\n" + note(3).encode(),
        b"old \xd9\xa3\n\n" + note(3).encode(),
        note(3).encode(),
        b"old 0\nAAAA\n\n" + note(3).encode(),
        b"old 0\n!\n\n" + note(3).encode(),
        b"old 1\n" + b"%s\n" % encode(b"h" * 32).rstrip("=").encode() + b"\n" + note(3).encode(),
        b"old 1\n" + 64 * (encode(b"h" * 32).encode() + b"\n") + b"\n" + note(3).encode(),
        b"old 0\n\n" + note(3).encode()[:-1],
        b"old 0\n\n" + note(3).encode() + b"\n",
        b"old 0\n\n" + note(3).replace("\n3\n", "\n03\n").encode(),
        b"old 0\n\nno checkpoint\n\n" + note(3).encode().split(b"\n\n")[1],
        b"old 0\n\n\xff" + note(3).encode(),
        b"old 4\n\n" + note(3).encode(),
        b"old 0\n\n" + note(3).encode() + b"x" * MOST_BYTES,
    ],
)
def test_what_is_malformed_is_refused_before_anything_is_asked(witness, content):
    assert refused(witness, content) is Refusal.MALFORMED
    assert witness.newest(LOG.name) is None


def test_a_log_that_is_not_followed_is_not_known(witness):
    assert refused(witness, submission(0, 3, signer=OTHER)) is Refusal.UNKNOWN_LOG


def test_which_logs_are_followed_is_asked_each_time(tmp_path):
    keys = []
    with Witness(tmp_path, witness_signer(), lambda: keys) as witness:
        assert refused(witness, submission(0, 3)) is Refusal.UNKNOWN_LOG
        keys.append(LOG.verifier)
        cosigned(witness, submission(0, 3))
        keys.append(OTHER.verifier)
        cosigned(witness, submission(0, 2, signer=OTHER))
        assert witness.newest(LOG.name).size == 3


def test_whoever_has_no_key_of_the_log_is_refused(witness):
    assert refused(witness, submission(0, 3, signer=STRANGER)) is Refusal.NOT_SIGNED
    content = submission(0, 3)
    signature = note(3).rpartition("— ")[2]
    spoiled = content.replace(signature.encode()[-40:-20], b"A" * 20)
    assert spoiled != content
    assert refused(witness, spoiled) is Refusal.NOT_SIGNED


def test_signatures_of_others_are_not_looked_at(witness):
    more = Note.parse(note(3)).signed(OTHER.sign("another text\n"), STRANGER.sign("another text\n"))
    cosigned(witness, str(Submission(0, (), str(more))).encode())


def test_a_second_key_of_a_log_is_as_good(tmp_path):
    with Witness(tmp_path, witness_signer(), lambda: [LOG.verifier, STRANGER.verifier]) as witness:
        cosigned(witness, submission(0, 3))
        cosigned(witness, submission(3, 4, signer=STRANGER))


@pytest.mark.parametrize(("old", "new"), [(0, 12), (9, 12), (11, 12), (0, 3), (3, 3), (3, 7)])
def test_whoever_says_another_old_size_is_told_the_newest(witness, old, new):
    cosigned(witness, submission(0, 10))
    assert witness.add_checkpoint(submission(old, new)) == Refused(
        Refusal.CONFLICT, "the newest that was cosigned has 10 entries", 10
    )


def test_another_root_of_the_same_size_is_refused_and_kept(witness, tmp_path):
    cosigned(witness, submission(0, 10))
    for _ in range(2):
        answer = witness.add_checkpoint(submission(10, 10, "forked"))
        assert (answer.reason, answer.size) == (Refusal.CONFLICT, 10)
    (path,) = tmp_path.glob("*.contradiction.json")
    kept = json.loads(path.read_text())
    heads = [open_checkpoint(kept[name], LOG.verifier)[0] for name in ("seen", "shown")]
    assert heads[0].size == heads[1].size == 10
    assert heads[0].root != heads[1].root
    cosigned(witness, submission(10, 11))


def test_no_more_contradictions_are_kept_than_anybody_reads(witness, tmp_path):
    cosigned(witness, submission(0, 3))
    for history in range(70):
        assert refused(witness, submission(3, 3, str(history))) is Refusal.CONFLICT
    assert len(list(tmp_path.glob("*.contradiction.json"))) == 64


def test_a_fork_and_a_proof_of_something_else_are_refused(witness):
    cosigned(witness, submission(0, 10))
    good = Submission.parse(submission(10, 20))
    for proof in (good.proof[1:], good.proof[::-1], (*good.proof, b"h" * 32), ()):
        wrong = str(Submission(10, proof, good.note)).encode()
        assert refused(witness, wrong) is Refusal.NOT_GROWN
    assert refused(witness, submission(10, 20, "forked")) is Refusal.NOT_GROWN
    assert witness.newest(LOG.name).size == 10
    cosigned(witness, submission(10, 20))


def test_from_nothing_on_there_is_nothing_to_prove(witness):
    wrong = str(Submission(0, (b"h" * 32,), note(3))).encode()
    assert refused(witness, wrong) is Refusal.NOT_GROWN


# Time.


def test_times_of_a_log_do_not_go_back(tmp_path):
    clock = Clock()
    with Witness(tmp_path, witness_signer(clock=clock), followed) as witness:
        assert cosigned(witness, submission(0, 3)).time == 1_700_000_000
        clock.now -= 3600
        assert cosigned(witness, submission(3, 4)).time == 1_700_000_000
    with Witness(tmp_path, witness_signer(clock=clock), followed) as witness:
        assert cosigned(witness, submission(4, 5)).time == 1_700_000_000
        clock.now += 7200
        assert cosigned(witness, submission(5, 5)).time == 1_700_003_600
        clock.now -= 7200
        assert cosigned(witness, submission(5, 6)).time == 1_700_003_600


# What breaks.


class Broken(Exception):
    pass


STEPS = ["write", "sync", "name", "sync folder of", "sign"]


@pytest.mark.parametrize("broken", range(len(STEPS)), ids=STEPS)
def test_nothing_is_signed_that_is_not_kept(tmp_path, broken):
    with Witness(tmp_path, witness_signer(), followed) as witness:
        cosigned(witness, submission(0, 10))
    names = []

    def step(name):
        names.append(name)
        if len(names) > broken:
            raise Broken

    with Witness(tmp_path, witness_signer(), followed, step) as witness, pytest.raises(Broken):
        witness.add_checkpoint(submission(10, 20))
    assert names[-1].startswith(STEPS[broken])
    with Witness(tmp_path, witness_signer(), followed) as witness:
        known = witness.newest(LOG.name).size
        # Once it is named it is known; and before it is signed it must be.
        assert known == (20 if STEPS[broken] in {"sync folder of", "sign"} else 10)
        assert refused(witness, submission(known, 25, "forked")) is Refusal.NOT_GROWN
        cosigned(witness, submission(known, 25))


_CHILD = """
import os, sys
from pathlib import Path
from tests.unit.tlog.growing import submission, witness_signer
from tests.unit.tlog.test_witness import followed
from transom.tlog.witness import Witness

left = int(sys.argv[2])

def step(name):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)

witness = Witness(Path(sys.argv[1]), witness_signer(), followed, step)
witness.add_checkpoint(submission(10, 20))
"""


@pytest.mark.parametrize("steps", range(len(STEPS)), ids=STEPS)
def test_a_witness_that_is_killed_knows_what_it_cosigned(tmp_path, steps):
    with Witness(tmp_path, witness_signer(), followed) as witness:
        cosigned(witness, submission(0, 10))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _CHILD, tmp_path, str(steps)], env=environment, check=False)
    assert done.returncode == -9
    with Witness(tmp_path, witness_signer(), followed) as witness:
        known = witness.newest(LOG.name).size
        assert known == (20 if steps > 2 else 10)
        assert refused(witness, submission(known, 25, "forked")) is Refusal.NOT_GROWN
        cosigned(witness, submission(known, 25))


def test_a_full_disk_cosigns_nothing(tmp_path):
    def step(name):
        if name.startswith("sync"):
            raise OSError(28, "No space left on device")

    with Witness(tmp_path, witness_signer(), followed, step) as witness:
        with pytest.raises(OSError, match="No space"):
            witness.add_checkpoint(submission(0, 10))
        assert witness.newest(LOG.name) is None


@pytest.mark.parametrize("content", [b"", b"x\n", b"1700000000\n", b"1\nlog.example/one\n9\n", b"\xff"])
def test_what_was_kept_and_cannot_be_read_stops_the_log_and_no_other(tmp_path, content):
    with Witness(tmp_path, witness_signer(), lambda: [LOG.verifier, OTHER.verifier]) as witness:
        cosigned(witness, submission(0, 10))
        (path,) = tmp_path.glob("*.seen")
        path.write_bytes(content)
        with pytest.raises(LogBroken, match="damaged"):
            witness.add_checkpoint(submission(10, 11))
        cosigned(witness, submission(0, 10, signer=OTHER))


def test_a_file_of_another_log_is_not_taken_for_its_own(tmp_path):
    with Witness(tmp_path, witness_signer(), lambda: [LOG.verifier, OTHER.verifier]) as witness:
        cosigned(witness, submission(0, 10))
        (own,) = tmp_path.glob("*.seen")
        cosigned(witness, submission(0, 3, signer=OTHER))
        (other,) = set(tmp_path.glob("*.seen")) - {own}
        other.replace(own)
        with pytest.raises(LogBroken, match=r"is of 'other\.example'"):
            witness.add_checkpoint(submission(10, 11))


def test_there_is_one_witness_for_a_folder(tmp_path):
    with (
        Witness(tmp_path, witness_signer(), followed) as witness,
        pytest.raises(LogBroken, match="another witness"),
    ):
        Witness(tmp_path, witness_signer(), followed)
    with Witness(tmp_path, witness_signer(), followed) as witness:
        cosigned(witness, submission(0, 1))


def test_a_key_of_a_log_makes_no_witness(tmp_path):
    with pytest.raises(ValueError, match="cosignatures"):
        Witness(tmp_path, LOG, followed)


# Many at once.


def test_of_two_histories_that_come_at_once_one_is_cosigned(tmp_path):
    known, history = 0, None
    with Witness(tmp_path, witness_signer(), followed) as witness, ThreadPoolExecutor(8) as pool:
        for _ in range(12):
            tried = [(known + more, side) for more in (1, 2, 3, 4) for side in ("", "forked")]
            sent = [submission(known, size, side) for size, side in tried]
            answers = list(pool.map(witness.add_checkpoint, sent))
            ((size, side),) = [
                each for each, answer in zip(tried, answers, strict=True) if isinstance(answer, Signature)
            ]
            assert history in {None, side}
            known, history = size, side
            assert witness.newest(LOG.name).root == root_of(size, side)


def root_of(size, history):
    return Checkpoint.parse(Note.parse(note(size, history)).text).root


@settings(max_examples=60, deadline=None)
@given(
    sent=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["", "forked"])), max_size=30
    )
)
def test_whatever_is_sent_what_is_cosigned_is_one_log_that_grows(sent):
    with (
        tempfile.TemporaryDirectory() as folder,
        Witness(Path(folder), witness_signer(), followed) as witness,
    ):
        heads = [(0, "")]
        for old, more, history in sent:
            content = submission(old, old + more, history)
            answer = witness.add_checkpoint(content)
            size, known = heads[-1]
            if isinstance(answer, Signature):
                assert old == size
                assert size == 0 or history == known
                heads.append((old + more, history))
            elif old == size:
                assert history != known
            else:
                assert answer == Refused(Refusal.CONFLICT, answer.message, size)


# What is sent and answered.


@pytest.mark.parametrize("proof", [(), (b"h" * 32,), (b"h" * 32,) * 63])
def test_a_submission_is_read_as_it_was_spelled(proof):
    sent = Submission(20852014, proof, note(3))
    assert Submission.parse(str(sent).encode()) == sent


def test_the_submission_of_the_specification_is_read():
    hashes = [
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=",
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=",
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=",
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=",
    ]
    head = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    found = Submission.parse("\n".join(["old 20852014", *hashes, "", head, "— x AAAAAAA=\n"]).encode())
    assert (found.old, [encode(each) for each in found.proof]) == (20852014, hashes)
    assert found.note.startswith(head)


def test_answers_are_read_as_they_were_spelled():
    signatures = [witness_signer().sign("text\n"), witness_signer("w.example/2", 8).sign("text\n")]
    assert read_signatures(spell_signatures(signatures).encode()) == signatures
    assert read_size(spell_size(0).encode()) == 0
    assert read_size(b"20852163\n") == 20852163


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"5", b"05\n", b"-5\n", b"5\n5\n", b"9" * 17 + b"\n", b"\xff\n"]
)
def test_what_is_no_size_is_refused(content):
    with pytest.raises(NotVerified):
        read_size(content)


@pytest.mark.parametrize("content", [b"", b"\n", "— x AAAAAAA=".encode(), b"x\n", b"\xff\n"])
def test_what_are_no_signatures_is_refused(content):
    with pytest.raises(NotVerified):
        read_signatures(content)


def test_the_roots_of_these_histories_differ():
    assert root_of(1, "") != root_of(1, "forked")
    assert root_of(3, "") == root([b"entry 0 ", b"entry 1 ", b"entry 2 "])
