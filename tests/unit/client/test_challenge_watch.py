"""Challenges held against the log: one that was met honestly is silent, and each way to cheat is told."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from tests.unit.client.served_log import ServedLog, digest
from tests.unit.schema.quicknet import QUICKNET, ROUND, SIGNATURE, WORD
from tests.unit.tlog.growing import LOG, Clock, witness_signer
from transom.client.challenge_watch import ChallengeWatch
from transom.client.monitor import Monitor
from transom.client.monitor_state import MonitorState
from transom.client.remote_log import RemoteLog
from transom.errors import NotFound
from transom.schema.canonical import sha256
from transom.schema.challenges import Challenge, Judged, Lot, Verdict, drawn
from transom.schema.drand import Spoken
from transom.schema.record import rfc3339
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.entries import Entry
from transom.tlog.notes import Note
from transom.tlog.policies import Policy

SPOKE = QUICKNET.time_of(ROUND)
"""Unix seconds of the round."""

SIZE = 40
"""Entries when the challenge is opened, all of records."""


def at(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


class Stage:
    """A log with challenges and verdicts, and who watches it."""

    def __init__(self, folder, policy=None) -> None:
        self.clock = Clock()
        self.clock.now = SPOKE - 700
        self.served = ServedLog(folder / "served")
        self.served.grow(SIZE)
        self.log = RemoteLog(LOG.verifier, "http://log.example", self.served.transport)
        self.state = MonitorState(folder / "state", str(LOG.verifier))
        self.monitor = Monitor(self.log, self.state, clock=self.clock)
        self.watch = ChallengeWatch(self.log, self.state, policy, self.clock)
        self.head = self.served.files.note().decode()

    def challenge(self, **change) -> Challenge:
        lot = Lot(beacon=QUICKNET.name, round=str(ROUND), count=3)
        opened = self.clock.now
        fields = {"opened": at(opened), "deadline": at(opened + 86400), "checkpoint": self.head, "lot": lot}
        return Challenge(**fields | change)

    def verdict(self, challenge: Challenge, **change) -> Verdict:
        root = Checkpoint.parse(Note.parse(self.head).text).root
        indices = drawn(root, bytes.fromhex(WORD), SIZE, 3) if challenge.lot else [challenge.index]
        fields = {"challenge": sha256(challenge.content), "judged": at(self.clock.now)}
        fields["found"] = tuple(Judged(index=n, digest=digest(n), level="EXACT") for n in indices)
        if challenge.lot:
            fields |= {"value": WORD, "spoken": Spoken(chain=QUICKNET, signature=SIGNATURE)}
        return Verdict(**fields | change)

    def publish(self, *documents: Challenge | Verdict) -> None:
        for each in documents:
            name = sha256(each.content)
            self.served.replies[f"/log/documents/{name}"] = shown(each.content)
            kind = "challenge" if isinstance(each, Challenge) else "verdict"
            self.served.add(Entry(kind, name).content)

    def look(self, now: float) -> list[str]:
        self.clock.now = now
        assert self.monitor.look() == []
        alerts = self.watch.look(self.monitor.verified)
        self.messages = [alert.message for alert in alerts]
        return [alert.alert for alert in alerts]


def shown(content: bytes):
    return lambda _request: httpx2.Response(200, content=content)


@pytest.fixture
def stage(tmp_path):
    made = Stage(tmp_path)
    yield made
    made.state.close()


def met(stage, *, seen=True, **change) -> list[str]:
    """What is told of a challenge, drawn and judged but for what is changed in the verdict."""
    challenge = stage.challenge()
    stage.publish(challenge)
    if seen:
        assert stage.look(SPOKE - 600) == []
    stage.clock.now = SPOKE + 60
    stage.publish(stage.verdict(challenge, **change))
    return stage.look(SPOKE + 120)


def test_a_challenge_that_was_met_is_silent_and_counted(stage):
    assert met(stage) == []
    assert stage.watch.summary == "1 met"
    fetched = len(stage.served.paths)
    assert stage.look(SPOKE + 180) == []
    # What is settled is not fetched again.
    assert stage.served.paths[fetched:] == ["/log/checkpoint"]


def test_one_that_is_open_is_no_alarm_and_one_without_a_verdict_is_missed(stage):
    stage.publish(stage.challenge())
    assert stage.look(SPOKE) == []
    assert stage.watch.summary == "1 open"
    assert stage.look(SPOKE + 86400) == ["challenge-missed"]
    assert stage.watch.summary == "1 missed"
    assert stage.look(SPOKE + 3 * 86400) == ["challenge-missed", "no-lots"]


def test_a_verdict_that_is_dated_back_is_late(stage):
    challenge = stage.challenge()
    stage.publish(challenge)
    assert stage.look(SPOKE) == []
    assert stage.look(SPOKE + 86400) == ["challenge-missed"]
    stage.publish(stage.verdict(challenge, judged=at(SPOKE + 60)))
    assert stage.look(SPOKE + 86500) == ["challenge-missed"]
    assert stage.watch.summary == "1 missed"


def test_a_verdict_after_the_deadline_is_late_for_who_sees_only_it(stage):
    challenge = stage.challenge()
    stage.publish(challenge, stage.verdict(challenge, judged=at(SPOKE + 86460)))
    assert stage.look(SPOKE + 86520) == ["challenge-missed"]
    assert "came after the deadline" in stage.messages[0]


def test_a_verdict_that_was_not_there_after_the_deadline_is_late_whatever_it_says(stage):
    challenge = stage.challenge()
    stage.publish(stage.challenge(lot=None, index=1), challenge)
    hidden = stage.served.replies.pop(f"/log/documents/{sha256(challenge.content)}")
    assert stage.look(SPOKE) == ["withheld-document"]
    assert stage.look(SPOKE + 86400) == ["challenge-missed", "withheld-document"]
    stage.served.replies[f"/log/documents/{sha256(challenge.content)}"] = hidden
    stage.publish(stage.verdict(challenge, judged=at(SPOKE + 60)))
    assert stage.look(SPOKE + 86500) == ["challenge-missed", "challenge-missed"]
    assert "came after the deadline" in stage.messages[1]


def other(found: Judged, **change) -> Judged:
    return found.model_copy(update=change)


def test_entries_that_chance_did_not_choose_are_told(stage):
    found = tuple(Judged(index=n, digest=digest(n), level="EXACT") for n in (1, 2, 3))
    assert met(stage, found=found) == ["wrong-verdict"]
    assert "The lot falls on" in stage.messages[0]
    assert stage.watch.summary == "1 refuted"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"value": "ab" * 32}, "not made of the signature"),
        ({"value": "zz"}, "not spelled"),
        ({"spoken": None}, "no signature"),
        ({"spoken": Spoken(chain=QUICKNET, signature=SIGNATURE[:-1] + "c")}, "not one of the chain"),
        (
            {"spoken": Spoken(chain=QUICKNET.model_copy(update={"period": 1}), signature=SIGNATURE)},
            "no signature",
        ),
    ],
)
def test_a_word_that_the_beacon_did_not_say_is_told(stage, change, told):
    assert "wrong-verdict" in met(stage, **change)
    assert told in stage.messages[0]


@pytest.mark.parametrize("lie", ["digest", "kind", "level"])
def test_a_verdict_on_other_records_than_those_of_the_log_is_told(stage, lie):
    found = stage.verdict(stage.challenge()).found
    change = {
        "digest": {"digest": digest(99)},
        "kind": {"level": "NO RECORD"},
        "level": {"level": "OUTSIDE", "reason": "TOKEN at 3"},
    }[lie]
    kind = "challenge-failed" if lie == "level" else "wrong-verdict"
    assert met(stage, found=(other(found[0], **change), *found[1:])) == [kind]


@pytest.mark.parametrize(
    "change",
    [
        {"index": 3},
        {"lot": None},
        {"lot": None, "index": SIZE},
        {"deadline": at(SPOKE + 10 * 86400)},
        {"opened": at(SPOKE + 5000), "deadline": at(SPOKE + 6000)},
        {"checkpoint": str(Checkpoint(LOG.name, SIZE, b"x" * 32).signed(LOG))},
    ],
)
def test_a_challenge_that_is_none_is_told(stage, change):
    stage.publish(stage.challenge(**change))
    assert stage.look(SPOKE - 600) == ["wrong-challenge"]


@pytest.mark.parametrize("number", ["x", "-1", "0", "9" * 40, "2026-11-28"])
def test_a_round_that_is_none_is_told(stage, number):
    challenge = stage.challenge(lot=Lot(beacon=QUICKNET.name, round=number, count=3))
    stage.publish(challenge, stage.verdict(challenge))
    assert stage.look(SPOKE + 120) == ["unreadable-challenge"]


def test_a_file_that_comes_with_a_signature_says_no_more_times_for_it(stage):
    challenge = stage.challenge(lot=Lot(beacon="file:dice.txt", round="2026-11-28", count=3))
    stage.publish(challenge, stage.verdict(challenge))
    assert stage.look(SPOKE + 120) == []


def test_only_the_first_verdict_counts(stage):
    challenge = stage.challenge(lot=None, index=5)
    stage.publish(challenge)
    bad = stage.verdict(challenge, found=(Judged(index=5, digest=digest(5), level="MISSING"),))
    stage.publish(bad, stage.verdict(challenge))
    assert stage.look(SPOKE) == ["challenge-failed"]
    assert stage.watch.summary == "1 refuted"


def test_what_is_wrong_is_told_at_each_look_and_fetched_once(stage):
    assert met(stage, value="ab" * 32) == ["wrong-verdict"]
    told, fetched = stage.messages, len(stage.served.paths)
    assert stage.look(SPOKE + 180) == ["wrong-verdict"]
    assert stage.messages == told
    assert stage.served.paths[fetched:] == ["/log/checkpoint"]


WITNESS = witness_signer(clock=lambda: SPOKE - 650)
LATE = witness_signer(clock=lambda: SPOKE + 1)
POLICY = Policy.parse(f"log {LOG.verifier}\nwitness w {WITNESS.verifier}\nquorum w\n")


@pytest.mark.parametrize(
    ("witness", "told"), [(WITNESS, []), (LATE, ["undated-challenge"]), (None, ["undated-challenge"])]
)
def test_who_looks_later_needs_witnesses_that_saw_it_before_the_round(tmp_path, witness, told):
    stage = Stage(tmp_path, POLICY)
    challenge = stage.challenge()
    stage.publish(challenge)
    note = Note.parse(stage.served.files.note())
    shown = None if witness is None else str(note.signed(witness.sign(note.text)))
    stage.clock.now = SPOKE + 60
    stage.publish(stage.verdict(challenge, shown=shown))
    assert stage.look(SPOKE + 120) == told
    stage.state.close()


def test_a_checkpoint_without_the_challenge_dates_nothing(tmp_path):
    stage = Stage(tmp_path, POLICY)
    note = Note.parse(stage.head)
    shown = str(note.signed(WITNESS.sign(note.text)))
    assert met(stage, seen=False, shown=shown) == ["undated-challenge"]
    stage.state.close()


def test_a_copy_without_documents_and_one_with_others_are_told_apart(stage):
    challenge = stage.challenge()
    stage.publish(challenge)
    path = f"/log/documents/{sha256(challenge.content)}"
    stage.served.replies[path] = shown(b"{}")
    assert stage.look(SPOKE - 600) == ["unreadable-challenge"]
    del stage.served.replies[path]
    with pytest.raises(NotFound, match="documents"):
        stage.look(SPOKE - 500)


@pytest.mark.parametrize("hidden", [0, 1])
def test_one_document_that_is_not_shown_hides_nothing_else(stage, hidden):
    challenge = stage.challenge()
    documents = [challenge, stage.verdict(challenge)]
    stage.publish(stage.challenge(lot=None, index=3), *documents)
    name = sha256(documents[hidden].content)
    del stage.served.replies[f"/log/documents/{name}"]
    assert stage.look(SPOKE + 60) == ["withheld-document"]
    assert name in stage.messages[0]
    missed = ["challenge-missed", "challenge-missed"][: 1 + hidden]
    assert stage.look(SPOKE + 86500) == [*missed, "withheld-document"]


def test_who_shows_a_deployment_shows_documents(stage):
    document = b"deployment"
    stage.served.add(Entry("deployment", sha256(document)).content)
    stage.served.replies[f"/log/documents/{sha256(document)}"] = shown(document)
    challenge = stage.challenge()
    stage.publish(challenge)
    del stage.served.replies[f"/log/documents/{sha256(challenge.content)}"]
    assert stage.look(SPOKE) == ["withheld-document"]


def test_what_was_shown_once_is_withheld_when_nothing_is_shown_any_more(stage):
    stage.publish(stage.challenge())
    assert stage.look(SPOKE) == []
    stage.served.replies.clear()
    assert stage.look(SPOKE + 60) == ["withheld-document"]
