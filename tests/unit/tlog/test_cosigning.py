"""A log and its witnesses: what is asked, what is published, and that nothing waits for a slow one."""

import threading
import time

import httpx2
import pytest

from tests.unit.tlog.growing import LOG, entries, witness_signer
from transom.errors import ConfigurationError, LogBroken
from transom.schema.merkle import root
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.tlog import asking, cosigning
from transom.tlog.asking import NotCosigned, WitnessDoor
from transom.tlog.checkpoints import Checkpoint, cosigners, open_checkpoint
from transom.tlog.cosigning import Cosigning
from transom.tlog.files import LogFiles
from transom.tlog.notes import Note
from transom.tlog.policies import Policy
from transom.tlog.policy_file import PolicyFile
from transom.tlog.publishing import Publication
from transom.tlog.sequencing import add_entries
from transom.tlog.submissions import SIZE_TYPE, Submission, spell_signatures, spell_size
from transom.tlog.witness import Refusal, Refused, Witness
from transom.tlog.writer import LogWriter

FAST, SLOW = witness_signer("fast.example", 1), witness_signer("slow.example", 2)
POLICY = Policy.parse(
    f"log {LOG.verifier}\nwitness fast {FAST.verifier} http://fast.example/w/\n"
    f"witness slow {SLOW.verifier} http://slow.example\nwitness unasked {witness_signer('u', 3).verifier}\n"
    "group both all fast slow\nquorum both\n"
)


class Witnesses:
    """Real ones behind a network that is not there: each can be told to be something else."""

    def __init__(self, folder):
        self.witnesses = {
            signer.name: Witness(folder / signer.name, signer, lambda: [LOG.verifier])
            for signer in (FAST, SLOW)
        }
        self.instead = {}
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        host = request.url.host
        if host in self.instead:
            return self.instead[host](request)
        assert request.method == "POST"
        assert request.url.path == ("/w/add-checkpoint" if host == "fast.example" else "/add-checkpoint")
        answer = self.witnesses[host].add_checkpoint(request.content)
        if not isinstance(answer, Refused):
            return httpx2.Response(200, text=spell_signatures([answer]))
        if answer.reason is Refusal.CONFLICT:
            return size(answer.size)
        return httpx2.Response(422, text=answer.message)

    def close(self):
        for each in self.witnesses.values():
            each.close()


def size(number):
    return httpx2.Response(409, text=spell_size(number), headers={"content-type": SIZE_TYPE})


@pytest.fixture
def network(tmp_path):
    made = Witnesses(tmp_path / "witnesses")
    yield made
    made.close()


# One witness.


@pytest.fixture
def log(tmp_path):
    with LogWriter(tmp_path / "log", LOG) as made:
        yield made


@pytest.fixture
def door(log, network):
    with WitnessDoor(SLOW.verifier, "http://slow.example", log, httpx2.MockTransport(network)) as made:
        yield made


def grow(log, end):
    log.append(entries(log.size, end))
    return open_checkpoint(log.note(), LOG.verifier)[1]


def test_a_witness_is_asked_once_for_each_growth(log, door, network):
    for end in (3, 700):
        note = grow(log, end)
        SLOW.verifier.verify(note.text, door.cosign(note))
    assert len(network.requests) == 2
    assert Submission.parse(network.requests[1].content).old == 3


def test_what_a_witness_knows_is_learnt(log, door, network):
    door.cosign(grow(log, 3))
    with WitnessDoor(SLOW.verifier, "http://slow.example", log, httpx2.MockTransport(network)) as again:
        note = grow(log, 10)
        SLOW.verifier.verify(note.text, again.cosign(note))
    assert [Submission.parse(each.content).old for each in network.requests] == [0, 0, 3]


def test_cosignatures_of_others_are_not_sent_along(log, door, network):
    note = grow(log, 3)
    door.cosign(note.signed(FAST.sign(note.text)))
    assert Note.parse(Submission.parse(network.requests[0].content).note) == note


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: httpx2.Response(503, text="tired"), "503: tired"),
        (lambda _: httpx2.Response(409, text="3\n"), "409"),
        (lambda _: httpx2.Response(302, headers={"location": "http://fast.example/w"}), "302"),
        (lambda _: size(99), "log went back"),
        (lambda _: size(0), "other entries"),
        (lambda _: httpx2.Response(409, text="x", headers={"content-type": SIZE_TYPE}), "no size"),
        (lambda _: httpx2.Response(200, text=""), "no line"),
        (lambda _: httpx2.Response(200, text="— x AAAAAAA=\n"), r"no cosignature of 'slow\.example'"),
        (
            lambda _: httpx2.Response(200, text=spell_signatures([FAST.sign("text\n")])),
            r"no cosignature of 'slow\.example'",
        ),
        (lambda _: httpx2.Response(200, text=spell_signatures([SLOW.sign("text\n")])), "does not fit"),
        (lambda _: httpx2.Response(200, text="x" * 70_000), "too long"),
    ],
)
def test_whatever_a_witness_answers_but_a_cosignature_is_said(log, door, network, answer, reason):
    network.instead["slow.example"] = answer
    note = grow(log, 10)
    with pytest.raises(NotCosigned, match=reason):
        door.cosign(note)
    del network.instead["slow.example"]
    SLOW.verifier.verify(note.text, door.cosign(note))


def test_a_witness_that_names_another_size_each_time_is_given_up(log, door, network):
    sizes = iter([3, 4, 5, 6])
    network.instead["slow.example"] = lambda _: size(next(sizes))
    with pytest.raises(NotCosigned, match="each time"):
        door.cosign(grow(log, 10))
    assert len(network.requests) == 2


def test_a_witness_that_is_not_there_is_said(log, door, network):
    def gone(_request):
        raise httpx2.ConnectError("refused")

    network.instead["slow.example"] = gone
    with pytest.raises(NotCosigned, match="cannot be reached: refused"):
        door.cosign(grow(log, 3))


def test_an_answer_that_trickles_is_not_waited_for(log, door, network, monkeypatch):
    monkeypatch.setattr(asking, "SECONDS", 0.05)

    def pieces():
        while True:
            time.sleep(0.02)
            yield b"x"

    network.instead["slow.example"] = lambda _: httpx2.Response(200, content=pieces())
    with pytest.raises(NotCosigned, match="too long"):
        door.cosign(grow(log, 3))


def test_a_fork_is_cosigned_by_nobody(log, door, network, tmp_path):
    door.cosign(grow(log, 10))
    with LogWriter(tmp_path / "fork", LOG) as fork:
        fork.append(entries(0, 12, "forked"))
        transport = httpx2.MockTransport(network)
        with WitnessDoor(SLOW.verifier, "http://slow.example", fork, transport) as other:
            forked = open_checkpoint(fork.note(), LOG.verifier)[1]
            with pytest.raises(NotCosigned, match="422"):
                other.cosign(forked)


# All of them, and the publication.


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/test.db")
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def publication(tmp_path, database, network):
    """Publishes into `log`, and asks; what goes wrong is in `said`."""
    said = []
    files = LogFiles(tmp_path / "log", LOG.verifier)
    asked = Cosigning(
        POLICY, files, lambda name, error: said.append((name, str(error))), httpx2.MockTransport(network)
    )
    made = Publication(database, tmp_path / "log", LOG, said.append, asked)
    made.said = said
    made.files = files
    yield made
    made.close()


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to be in time")


def add(database, start, end):
    database.write_sync(lambda connection: add_entries(connection, entries(start, end)))


def who_cosigned(content):
    if content is None:
        return None
    note = Note.parse(content)
    keys = cosigners(note, [FAST.verifier, SLOW.verifier])
    return Checkpoint.parse(note.text).size, {key.name for key in keys}


BOTH = {"fast.example", "slow.example"}


def test_the_published_checkpoint_gains_its_cosignatures(publication, database):
    add(database, 0, 300)
    until(lambda: who_cosigned(publication.files.note()) == (300, BOTH))
    until(lambda: who_cosigned(publication.files.cosigned()) == (300, BOTH))
    assert POLICY.verify(publication.files.cosigned())[0].root == root(entries(0, 300))
    add(database, 300, 301)
    until(lambda: who_cosigned(publication.files.note()) == (301, BOTH))
    until(lambda: who_cosigned(publication.files.cosigned()) == (301, BOTH))
    assert publication.said == []


def test_a_dead_witness_and_one_that_hangs_stop_nothing(publication, database, network, monkeypatch):
    hanging = threading.Event()

    def hang(_request):
        hanging.wait(60)
        raise httpx2.ReadTimeout("timed out")

    network.instead["slow.example"] = hang
    for end in (5, 6, 7):
        add(database, end - 5, end) if end == 5 else add(database, end - 1, end)
        until(lambda: who_cosigned(publication.files.note()) == (end, {"fast.example"}))  # noqa: B023
    assert publication.files.cosigned() is None
    del network.instead["slow.example"]
    hanging.set()
    until(lambda: publication.files.cosigned() is not None)
    assert who_cosigned(publication.files.cosigned())[1] == BOTH
    assert publication.said == [("slow", "it cannot be reached: timed out")]


def test_what_a_slow_witness_cosigned_completes_the_quorum_of_that_checkpoint(publication, database, network):
    gate = threading.Event()
    seen = threading.Event()
    answer = network.__call__

    def late(request):
        seen.set()
        gate.wait(60)
        del network.instead["slow.example"]
        return answer(request)

    network.instead["slow.example"] = late
    add(database, 0, 5)
    assert seen.wait(30)
    asked = Submission.parse(next(r for r in network.requests if r.url.host == "slow.example").content)
    size_asked = Checkpoint.parse(Note.parse(asked.note).text).size
    add(database, 5, 9)
    until(lambda: who_cosigned(publication.files.note()) == (9, {"fast.example"}))
    gate.set()
    until(publication.files.cosigned)
    assert size_asked < 9
    until(lambda: who_cosigned(publication.files.note()) == (9, BOTH))


def test_after_a_restart_the_witnesses_are_asked_for_what_is_published(tmp_path, database, network):
    add(database, 0, 5)
    Publication(database, tmp_path / "log", LOG, print).close()
    files = LogFiles(tmp_path / "log", LOG.verifier)
    asked = Cosigning(POLICY, files, print, httpx2.MockTransport(network))
    publication = Publication(database, tmp_path / "log", LOG, print, asked)
    try:
        until(lambda: who_cosigned(files.note()) == (5, BOTH))
    finally:
        publication.close()


def test_a_log_that_went_back_is_said_by_its_witnesses(tmp_path, database, network):
    for witness in network.witnesses.values():
        with LogWriter(tmp_path / "before", LOG) as before:
            before.append(entries(before.size, 50))
            witness.add_checkpoint(str(Submission(0, (), before.note().decode())).encode())
    said = []
    files = LogFiles(tmp_path / "log", LOG.verifier)
    asked = Cosigning(
        POLICY, files, lambda name, error: said.append((name, str(error))), httpx2.MockTransport(network)
    )
    publication = Publication(database, tmp_path / "log", LOG, print, asked)
    try:
        add(database, 0, 5)
        until(lambda: any("5: the log went back" in reason for _, reason in said))
        assert who_cosigned(files.note())[1] == set()
    finally:
        publication.close()


def test_only_so_many_checkpoints_wait_for_cosignatures(tmp_path, monkeypatch):
    asked = Cosigning(POLICY, LogFiles(tmp_path, LOG.verifier), print)
    for number in range(100):
        asked.offer(Checkpoint(LOG.name, number, b"r" * 32).signed(LOG))
    assert len(asked._notes) == cosigning._KEPT
    with asked.taking() as notes:
        assert notes == []


def test_cosignatures_that_a_full_disk_did_not_take_are_given_again(tmp_path):
    asked = Cosigning(POLICY, LogFiles(tmp_path, LOG.verifier), print)
    note = Checkpoint(LOG.name, 5, b"r" * 32).signed(LOG)
    asked.offer(note)
    asked._add(note, FAST.sign(note.text))

    def fail():
        with asked.taking():
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    with asked.taking() as notes:
        assert [who_cosigned(str(each)) for each in notes] == [(5, {"fast.example"})]
    with asked.taking() as notes:
        assert notes == []


def test_only_a_checkpoint_that_the_log_had_is_kept_as_cosigned(log):
    first, second = grow(log, 3), grow(log, 10)
    # A slow witness may complete the quorum of an older one when a newer has it.
    for note, kept in [(first, first), (second, second), (first, second)]:
        log.keep_cosigned(note)
        assert Note.parse(log.cosigned()) == kept
    for head in (Checkpoint(LOG.name, 3, b"r" * 32), Checkpoint(LOG.name, 11, b"r" * 32)):
        with pytest.raises(LogBroken, match="one that this log had"):
            log.keep_cosigned(head.signed(LOG))


# The file of a policy.


def test_a_policy_is_read_again_when_it_changes_and_mistakes_change_nothing(tmp_path):
    path, said = tmp_path / "policy", []
    path.write_text("quorum none\n")
    file = PolicyFile(path, said.append)
    assert file.latest().logs == {}
    path.write_text(f"log {LOG.verifier}\nquorum none\n")
    assert list(file.latest().logs) == [LOG.verifier]
    path.write_text("quorum\n")
    assert list(file.latest().logs) == [LOG.verifier]
    file.latest()
    (reason,) = map(str, said)
    assert reason.startswith(f"{path} is no policy")
    assert "line 1 of the policy: 'quorum' is no line" in reason
    path.unlink()
    assert list(file.latest().logs) == [LOG.verifier]


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"quorum x"])
def test_a_policy_that_cannot_be_read_to_begin_with_is_an_error(tmp_path, content):
    path = tmp_path / "policy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="policy"):
        PolicyFile(path, print)
