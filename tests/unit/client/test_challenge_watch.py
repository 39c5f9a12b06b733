"""Challenges held against the log: one that was met honestly is silent, and each way to cheat is told."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import httpx2
import pytest

from tests.unit.client.served_log import ServedLog, digest
from tests.unit.schema.quicknet import QUICKNET, ROUND, SIGNATURE, WORD
from tests.unit.tlog.growing import LOG, Clock, witness_signer
from transom.client.observing.challenge_watch import ChallengeWatch
from transom.client.observing.monitor import Monitor
from transom.client.observing.monitor_state import MonitorState
from transom.client.observing.remote_log import RemoteLog
from transom.schema import drand
from transom.schema.canonical import sha256
from transom.schema.challenges import Challenge, Judged, Lot, Verdict, drawn
from transom.schema.drand import Spoken
from transom.schema.merkle import EMPTY_ROOT
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
        self.watch = ChallengeWatch(self.log, self.state, policy, clock=self.clock)
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
    assert stage.look(SPOKE + 120) == ["unknown-beacon"]
    assert "--beacon" in stage.messages[0]
    stage.watch = ChallengeWatch(stage.log, stage.state, None, ("file:dice.txt",), stage.clock)
    assert stage.look(SPOKE + 180) == []


def test_a_chain_that_somebody_made_is_not_taken_for_chance(stage):
    own = QUICKNET.model_copy(update={"beacon_id": "mine"})
    stage.publish(stage.challenge(lot=Lot(beacon=own.name, round=str(ROUND), count=3)))
    assert stage.look(SPOKE) == ["unknown-beacon"]
    assert QUICKNET.name == drand.QUICKNET


@pytest.mark.parametrize("count", [0, -5, 257, 1 << 47])
def test_a_lot_falls_on_some_entries_and_not_on_too_many(stage, count):
    lot = Lot.model_construct(beacon=QUICKNET.name, round=str(ROUND), count=count)
    stage.publish(stage.challenge().model_copy(update={"lot": lot}))
    assert stage.look(SPOKE) == ["unreadable-challenge"]


def test_only_the_first_verdict_counts(stage):
    challenge = stage.challenge(lot=None, index=5)
    stage.publish(challenge)
    bad = stage.verdict(challenge, found=(Judged(index=5, digest=digest(5), level="MISSING"),))
    stage.publish(bad, stage.verdict(challenge))
    assert stage.look(SPOKE) == ["wrong-verdict", "challenge-failed"]
    assert "more than one verdict" in stage.messages[0]
    assert stage.watch.summary == "1 refuted"


@pytest.mark.parametrize("first", ["bad", "good"])
def test_a_second_verdict_is_told_though_the_first_was_hidden_for_a_while(stage, first):
    challenge = stage.challenge(lot=None, index=5)
    bad = stage.verdict(challenge, found=(Judged(index=5, digest=digest(5), level="OUTSIDE"),))
    good = stage.verdict(challenge)
    hidden, other = (bad, good) if first == "bad" else (good, bad)
    stage.publish(challenge, hidden, other)
    path = f"/log/documents/{sha256(hidden.content)}"
    reply = stage.served.replies.pop(path)
    assert "withheld-document" in stage.look(SPOKE)
    stage.served.replies[path] = reply
    assert "wrong-verdict" in stage.look(SPOKE + 10)
    assert ("challenge-failed" in stage.look(SPOKE + 20)) == (first == "bad")


def test_a_verdict_after_one_that_was_settled_is_told(stage):
    challenge = stage.challenge(lot=None, index=5)
    stage.publish(challenge, stage.verdict(challenge))
    assert stage.look(SPOKE) == []
    stage.publish(stage.verdict(challenge, found=(Judged(index=5, digest=digest(5), level="OUTSIDE"),)))
    for seconds in (10, 20):
        assert stage.look(SPOKE + seconds) == ["wrong-verdict"]


def test_a_verdict_that_stands_before_its_challenge_is_told(stage):
    challenge = stage.challenge(lot=None, index=5)
    stage.publish(stage.verdict(challenge), challenge)
    assert stage.look(SPOKE) == ["wrong-verdict"]


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
    assert stage.look(SPOKE - 500) == []
    assert "Documents, such as" in stage.watch.notes[0]


def broken(_request):
    raise httpx2.ReadError("gone")


@pytest.mark.parametrize("hidden", [0, 1])
@pytest.mark.parametrize(
    "reply",
    [
        lambda _: httpx2.Response(404),
        lambda _: httpx2.Response(500),
        lambda _: httpx2.Response(302, headers={"location": "http://elsewhere.example"}),
        lambda _: httpx2.Response(200, content=bytes(2 << 20)),
        broken,
    ],
)
def test_one_document_that_is_not_shown_hides_nothing_else(stage, hidden, reply):
    challenge = stage.challenge()
    documents = [challenge, stage.verdict(challenge)]
    stage.publish(stage.challenge(lot=None, index=3), *documents)
    name = sha256(documents[hidden].content)
    stage.served.replies[f"/log/documents/{name}"] = reply
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


# When it was there, and what was there before.


def test_what_was_not_there_when_the_beacon_spoke_is_told_by_who_looked(stage):
    challenge = stage.challenge()
    assert stage.look(SPOKE + 10) == []
    stage.publish(challenge, stage.verdict(challenge))
    assert stage.look(SPOKE + 60) == ["undated-challenge"]
    assert "not in the log yet" in stage.messages[0]


def test_a_draw_from_the_log_as_it_was_long_before_is_told(stage):
    assert stage.look(SPOKE - 3600) == []
    stage.served.grow(SIZE + 5)
    for seconds in (-3000, -700):
        assert stage.look(SPOKE + seconds) == []
    stage.publish(stage.challenge())
    assert stage.look(SPOKE - 600) == ["wrong-challenge"]
    assert f"had {SIZE + 5} before" in stage.messages[0]


def test_an_empty_log_has_nothing_to_draw_from(stage):
    stage.publish(stage.challenge(checkpoint=str(Checkpoint(LOG.name, 0, EMPTY_ROOT).signed(LOG))))
    assert stage.look(SPOKE - 600) == ["wrong-challenge"]


def test_a_verdict_that_comes_between_the_checkpoint_and_the_clock_is_not_missed(stage):
    challenge = stage.challenge()
    stage.publish(challenge)
    assert stage.look(SPOKE) == []
    # The checkpoint was asked for in time; whatever took so long came after.
    stage.clock.now = SPOKE + 86400
    assert stage.watch.look(stage.monitor.verified, SPOKE + 85600) == []
    stage.publish(stage.verdict(challenge, judged=at(SPOKE + 85650)))
    assert stage.look(SPOKE + 86500) == []
    assert stage.watch.summary == "1 met"


def test_what_may_be_in_the_rest_of_the_log_is_not_missed(stage):
    challenge = stage.challenge()
    stage.publish(challenge)
    assert stage.look(SPOKE) == []
    stage.publish(stage.verdict(challenge))
    stage.clock.now = SPOKE + 86400
    (bundle,) = (stage.served.folder / "tile" / "entries").rglob(str(SIZE + 2))
    whole = bundle.read_bytes()
    bundle.unlink()
    assert [alert.alert for alert in stage.monitor.look()] == ["not-verified"]
    assert stage.watch.look(stage.monitor.verified, SPOKE + 86400) == []
    bundle.write_bytes(whole)
    assert stage.look(SPOKE + 86500) == []
    assert stage.watch.summary == "1 met"


@pytest.mark.parametrize("opened", ["2026-11-28T00:00:00", "yesterday", "12" * 40])
def test_a_time_that_does_not_say_where_is_none(stage, opened):
    stage.publish(stage.challenge(opened=opened))
    assert stage.look(SPOKE) == ["unreadable-challenge"]


def test_a_time_that_is_far_away_does_not_stand_for_lots_that_are_not_drawn(stage):
    far = "9999-12-31T00:00:00Z"
    stage.publish(stage.challenge(opened=far, deadline=far))
    assert stage.look(SPOKE - 600) == ["wrong-challenge"]
    assert stage.look(SPOKE + 3 * 86400) == ["wrong-challenge", "no-lots"]


def test_a_verdict_without_any_replay_is_not_met(stage):
    found = tuple(
        Judged(index=each.index, digest=each.digest, level="UNREPLAYABLE", reason="DEPLOYMENT")
        for each in stage.verdict(stage.challenge()).found
    )
    assert met(stage, found=found) == []
    assert stage.watch.summary == "1 unreplayed"


def test_without_the_extra_nothing_is_held_against_anybody(stage, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "transom.schema.bls", None)
        assert met(stage) == []
        assert "transom[beacon]" in stage.watch.notes[0]
        assert stage.watch.summary == "1 open"
    assert stage.look(SPOKE + 180) == []
    assert stage.watch.summary == "1 met"


def test_another_policy_may_date_what_one_could_not(tmp_path):
    stage = Stage(tmp_path, Policy.parse(f"log {LOG.verifier}\nwitness v {OTHER.verifier}\nquorum v\n"))
    challenge = stage.challenge()
    stage.publish(challenge)
    note = Note.parse(stage.served.files.note())
    stage.clock.now = SPOKE + 60
    stage.publish(stage.verdict(challenge, shown=str(note.signed(WITNESS.sign(note.text)))))
    assert stage.look(SPOKE + 120) == ["undated-challenge"]
    stage.watch = ChallengeWatch(stage.log, stage.state, POLICY, clock=stage.clock)
    assert stage.look(SPOKE + 180) == []
    stage.state.close()


OTHER = witness_signer("other", 9)
