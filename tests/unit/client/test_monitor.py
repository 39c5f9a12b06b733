"""Following a log: what is told, what is not, and what it costs."""

import json
import shutil
from pathlib import Path

import httpx2
import pytest

from tests.unit.client.served_log import DEPLOYMENT, ServedLog, digest, entries
from tests.unit.tlog.growing import LOG, Clock, witness_signer
from transom import Client
from transom.access.programme.programme import default_text, parse
from transom.client.failures import UnexpectedReply
from transom.client.observing.monitor import Claim, Monitor
from transom.client.observing.monitor_state import MonitorState
from transom.client.observing.remote_log import RemoteLog
from transom.client.observing.server_watch import ServerWatch
from transom.errors import AccessDenied, InvalidRequest, NotFound, StorageError
from transom.schema.programme import Programme, ProgrammeView
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.policies import Policy
from transom.tlog.proofs import Proof
from transom.tlog.tiles import tiles_between
from transom.tlog.writer import LogWriter

WITNESS = witness_signer()
POLICY = Policy.parse(f"log {LOG.verifier}\nwitness w {WITNESS.verifier}\nquorum w\n")


@pytest.fixture
def served(tmp_path):
    return ServedLog(tmp_path / "served")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path):
    made = MonitorState(tmp_path / "state", str(LOG.verifier))
    yield made
    made.close()


@pytest.fixture
def monitor(served, state, clock):
    return watching(served, state, clock)


def watching(served, state, clock, **options):
    log = RemoteLog(LOG.verifier, "http://log.example", served.transport)
    return Monitor(log, state, clock=clock, **options)


def kinds(alerts):
    return [alert.alert for alert in alerts]


def test_a_log_that_grows_is_read_and_nothing_is_told(served, monitor, state):
    for size in (0, 1, 256, 300, 20_000):
        served.grow(size)
        assert monitor.look() == []
        assert (monitor.head.size, state.read) == (size, size)
    assert state.has("record", digest(19_999))
    assert not state.has("record", digest(20_000))
    assert not state.has("deployment", digest(3))


def test_only_what_is_new_is_fetched(served, monitor):
    served.grow(20_000)
    monitor.look()
    before = len(served.paths)
    monitor.look()
    assert served.paths[before:] == ["/log/checkpoint"]
    served.grow(20_010)
    monitor.look()
    fetched = served.paths[before + 1 :]
    assert len(fetched) < 8
    assert [path for path in fetched if "entries" in path] == ["/log/tile/entries/078.p/42"]


def test_what_was_seen_is_known_after_a_restart(served, monitor, state, clock, tmp_path):
    served.grow(700)
    monitor.look()
    state.close()
    shutil.rmtree(served.folder)
    served.grow(700, "forked")
    again = MonitorState(tmp_path / "state", str(LOG.verifier))
    assert again.has("record", digest(699))
    assert kinds(watching(served, again, clock).look()) == ["split-view"]
    again.close()


def test_a_rollback_is_told_with_both_checkpoints(served, monitor, state):
    served.grow(300)
    seen = served.files.note().decode()
    monitor.look()
    shutil.rmtree(served.folder)
    served.grow(299)
    (alert,) = monitor.look()
    assert (alert.alert, alert.may_pass) == ("rollback", False)
    kept = json.loads(Path(alert.facts["evidence"]).read_text())
    assert kept == {"seen": seen, "shown": served.files.note().decode()}
    assert monitor.head.size == 300
    shutil.rmtree(served.folder)
    assert kinds(monitor.look()) == ["rollback"]


@pytest.mark.parametrize("end", [300, 301, 1000])
def test_a_fork_is_told_with_both_checkpoints(served, monitor, state, end):
    served.grow(300)
    monitor.look()
    shutil.rmtree(served.folder)
    served.grow(end, "forked")
    for _ in range(2):
        (alert,) = monitor.look()
        assert (alert.alert, alert.may_pass) == ("split-view", False)
        kept = json.loads(Path(alert.facts["evidence"]).read_text())
        heads = [open_checkpoint(kept[name], LOG.verifier)[0] for name in ("seen", "shown")]
        assert [head.size for head in heads] == [300, end]
    assert (monitor.head.size, state.read) == (300, 300)


def test_a_log_without_a_checkpoint_is_told(served, monitor):
    (alert,) = monitor.look()
    assert (alert.alert, alert.message) == ("rollback", "There is no checkpoint.")


def test_a_checkpoint_that_the_log_has_not_signed_is_told(served, monitor):
    served.grow(3)
    path = served.folder / "checkpoint"
    path.write_text(path.read_text().replace("\n3\n", "\n4\n"))
    assert kinds(monitor.look()) == ["not-verified"]
    assert monitor.head is None


def test_each_file_that_does_not_fit_is_told_and_read_once_it_does(served, monitor, state):
    served.grow(300)
    monitor.look()
    served.grow(600)
    for tile in tiles_between(300, 600):
        path = served.folder / tile.path
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        other = MonitorState(state.folder.parent / "other" / tile.path.replace("/", "-"), str(LOG.verifier))
        found = watching(served, other, Clock()).look()
        assert kinds(found) == ["not-verified"], tile.path
        path.write_bytes(whole)
        assert watching(served, other, Clock()).look() == []
        assert other.read == 600
        other.close()
    assert monitor.look() == []


def test_entries_of_no_known_kind_are_told_with_their_places(served, monitor, state):
    served.grow(2)
    served.add(b"what?", *entries(2, 3), b'{"kind":"record","digest":"sha256:00"}')
    alerts = monitor.look()
    assert kinds(alerts) == ["unreadable-entry"] * 2
    assert [alert.facts["index"] for alert in alerts] == [2, 4]
    assert state.has("record", digest(2))
    assert monitor.look() == []
    served.add(*(b"many %d" % n for n in range(50)))
    alerts = monitor.look()
    assert kinds(alerts) == ["unreadable-entry"] * 11
    assert alerts[-1].message.startswith("50 entries")


def test_a_checkpoint_that_stands_still_is_told_after_a_while(served, state, clock):
    monitor = watching(served, state, clock, standstill=60)
    served.grow(3)
    assert monitor.look() == []
    clock.now += 61
    assert kinds(monitor.look()) == ["standstill"]
    served.grow(4)
    assert monitor.look() == []


def test_a_missing_quorum_is_told_and_may_pass(served, state, clock):
    monitor = watching(served, state, clock, policy=POLICY)
    served.grow(3)
    (alert,) = monitor.look()
    assert (alert.alert, alert.may_pass) == ("no-quorum", True)
    with LogWriter(served.folder, LOG) as log:
        note = open_checkpoint(log.note(), LOG.verifier)[1]
        log.publish(note.signed(WITNESS.sign(note.text)))
    assert monitor.look() == []
    assert POLICY.verify(state.note)[0].size == 3


# What others were shown.


def test_whoever_was_shown_the_same_log_sooner_is_no_alert(served, monitor):
    claims = []
    for size in (3, 256, 300):
        served.grow(size)
        claims.append(Claim("friend", served.files.note().decode()))
    assert monitor.look(claims) == []


@pytest.mark.parametrize("size", [1, 299, 300])
def test_whoever_was_shown_another_log_is_told(served, monitor, tmp_path, size):
    served.grow(300)
    served.grow(size, "forked", tmp_path / "fork")
    note = (tmp_path / "fork" / "checkpoint").read_text()
    (alert,) = monitor.look([Claim("friend", note)])
    assert (alert.alert, alert.may_pass, alert.facts["compared"]) == ("split-view", False, "friend")
    assert json.loads(Path(alert.facts["evidence"]).read_text())["shown"] == note


def test_whoever_was_shown_more_is_told_unless_it_comes(served, monitor):
    served.grow(300)
    more = Claim("friend", served.files.note().decode())
    shutil.rmtree(served.folder)
    served.grow(200)
    (alert,) = monitor.look([more])
    assert (alert.alert, alert.may_pass) == ("withheld", True)
    served.grow(300)
    assert monitor.look([more]) == []


def test_what_is_no_checkpoint_of_the_log_is_told(served, monitor):
    served.grow(3)
    assert kinds(monitor.look([Claim("friend", "nonsense")])) == ["not-verified"]


def test_a_receipt_is_a_claim_too(served, monitor):
    served.grow(300)
    proof = Proof(7, tuple(served.files.inclusion(7, 300)), served.files.note().decode())
    assert monitor.look([Claim("receipt", Proof.parse(str(proof)).checkpoint)]) == []


@pytest.mark.parametrize(
    "leaf",
    [
        b'{"digest":5,"kind":"challenge"}',
        b'{"digest":null,"kind":"verdict"}',
        b'{"digest":"a\\u0001b","kind":"challenge"}',
        b'{"digest":"%s","kind":"record"}' % (b"AB" * 32),
        b"[" * 60_000,
        b'{"digest":"sha256:%s","kind":["record"]}' % (b"ab" * 32),
    ],
)
def test_whatever_stands_in_a_log_stops_nobody_who_reads_it(served, monitor, state, leaf):
    served.grow(3)
    served.add(leaf)
    assert kinds(monitor.look()) == ["unreadable-entry"]
    served.grow(10)
    assert monitor.look() == []
    assert state.read == 10


# The state.


def test_a_folder_is_of_one_log_and_one_monitor(state, tmp_path):
    with pytest.raises(InvalidRequest, match="Another monitor"):
        MonitorState(tmp_path / "state", str(LOG.verifier))
    state.close()
    with pytest.raises(InvalidRequest, match="is of the log"):
        MonitorState(tmp_path / "state", str(WITNESS.verifier))
    (tmp_path / "state" / "monitor.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(InvalidRequest, match="can be read"):
        MonitorState(tmp_path / "state", str(LOG.verifier))


def test_what_breaks_halfway_is_read_again(served, state, clock):
    served.grow(300)

    def broken():
        yield 0, Entry("record", digest(0))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), state.changing():
        state.add_entries(broken(), 1, 0.0)
    assert (state.read, state.has("record", digest(0))) == (0, False)
    assert watching(served, state, clock).look() == []
    assert state.read == 300


# What the server says of itself.


@pytest.fixture
def server(served, state, clock):
    with Client("http://log.example", "tr_key", transport=served.transport) as client:
        yield ServerWatch(
            client, RemoteLog(LOG.verifier, "http://log.example", served.transport), state, clock=clock
        )


def card(name, deployment):
    rest = {"object": "model", "created": 7, "owned_by": "operator", "max_model_len": 1, "deployment": {}}
    return rest | {"id": name, "digest": deployment}


def test_a_deployment_that_is_not_in_the_log_is_told(served, monitor, server, state):
    served.grow(3)
    served.replies["/v1/models"] = {
        "object": "list",
        "data": [card("smol", DEPLOYMENT), card("b", digest(1))],
    }
    monitor.look()
    alerts = server.deployments()
    assert kinds(alerts) == ["unlogged-deployment"] * 2
    assert alerts[0].facts == {"model": "smol", "deployment": DEPLOYMENT}
    assert alerts[0].may_pass
    with state.changing():
        state.add_entries([(1, Entry("deployment", DEPLOYMENT)), (2, Entry("record", digest(1)))], 3, 0.0)
    assert [alert.facts["model"] for alert in server.deployments()] == ["b"]


def test_rules_that_are_not_in_the_log_are_told(served, monitor, server, state):
    offered = parse(default_text())
    served.grow(3)
    with pytest.raises(NotFound):
        server.policy()
    served.replies["/v1/programme"] = ProgrammeView.of(offered).model_dump(mode="json")
    monitor.look()
    (alert,) = server.policy()
    assert (alert.alert, alert.facts, alert.may_pass) == ("unlogged-policy", {"policy": offered.digest}, True)
    served.add(Entry("policy", offered.digest).content)
    monitor.look()
    (alert,) = server.policy()
    assert "does not show" in alert.message
    content = {"it": offered.content}
    served.replies[f"/log/documents/{offered.digest}"] = lambda _: httpx2.Response(200, content=content["it"])
    assert server.policy() == []
    served.replies["/v1/programme"] = ProgrammeView.of(offered).model_dump(mode="json") | {"draft_days": 1}
    (alert,) = server.policy()
    assert "are others in the log" in alert.message
    content["it"] = b"{}"
    (alert,) = server.policy()
    assert "cannot be read" in alert.message


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"[" * 100_000, b'{"order":["a"],"programme":{"tiers":{}}}', b"x"]
)
def test_what_is_no_programme_is_refused(content):
    offered = parse(default_text())
    assert Programme.of(offered.content) == offered
    with pytest.raises(ValueError, match=r"."):
        Programme.of(content)


def test_a_copy_of_a_log_says_nothing_of_deployments(served, server):
    with pytest.raises(NotFound):
        server.deployments()
    refusal = {"error": {"message": "No.", "type": "authentication_error", "code": "invalid_api_key"}}
    served.replies["/v1/models"] = lambda _: httpx2.Response(401, json=refusal)
    with pytest.raises(AccessDenied):
        server.deployments()


def summary(number, created="2023-11-14T22:13:20.000000Z", **changes):
    rest = {"project": "p", "model": "smol", "deployment": DEPLOYMENT, "endpoint": "/v1/completions"}
    rest |= {"id": f"rec_{number}", "status": "complete", "sequence": number, "digest": digest(number)}
    return rest | {"created": created} | changes


def lay(served, *records):
    """Serves records, newest first, in pages of two."""

    def page(request):
        limit = min(2, int(request.url.params["limit"]))
        start = int(request.url.params.get("after", 0))
        data = list(records)[start : start + limit]
        after = str(start + limit) if start + limit < len(records) else None
        return httpx2.Response(200, json={"data": data, "after": after})

    served.replies["/v1/records"] = page


def numbered(last, *without, **changes):
    return [summary(number, **changes) for number in range(last, 0, -1) if number not in without]


def test_records_without_a_gap_that_are_in_the_log_are_no_alert(served, monitor, server, clock):
    served.grow(20)
    monitor.look()
    clock.now += 3600
    for last in (5, 5, 6, 19):
        lay(served, *numbered(last))
        assert server.records() == []
    lay(served)
    (alert,) = server.records()
    assert (alert.alert, alert.message) == ("gap", "The records of p are gone.")


def test_no_records_are_no_alert(served, server):
    lay(served)
    assert server.records() == []


@pytest.mark.parametrize(
    ("missing", "named"), [([1], "1"), ([4, 5], "4 to 5"), ([2, 7, 8, 9], "2, 7 to 9"), ([9], "9")]
)
def test_a_gap_is_told_as_long_as_it_is_there(served, monitor, server, missing, named):
    served.grow(20)
    monitor.look()
    lay(served, *numbered(10, *missing))
    for _ in range(2):
        (alert,) = server.records()
        assert (alert.alert, alert.message) == ("gap", f"Records of p are missing: {named}.")


def test_a_gap_between_two_looks_is_told(served, monitor, server):
    served.grow(20)
    monitor.look()
    lay(served, *numbered(4))
    assert server.records() == []
    lay(served, *numbered(8, 5))
    assert [alert.message for alert in server.records()] == ["Records of p are missing: 5."]


def test_a_number_beyond_all_measure_takes_no_memory(served, monitor, server):
    served.grow(20)
    monitor.look()
    lay(served, summary(10**15), *numbered(2))
    alerts = server.records()
    assert alerts[0].message == f"Records of p are missing: 3 to {10**15 - 1}."


def test_the_newest_record_that_is_gone_or_another_is_told(served, monitor, server):
    served.grow(20)
    monitor.look()
    lay(served, *numbered(5))
    server.records()
    lay(served, *numbered(4))
    (alert,) = server.records()
    assert (alert.alert, alert.message) == ("gap", "The newest record of p is 4, and 5 has been seen.")
    lay(served, *numbered(6, 5))
    assert kinds(server.records()) == ["changed-record"]
    lay(served, *numbered(6))
    assert server.records() == []


def test_another_record_under_a_known_number_is_told(served, monitor, server):
    served.grow(20)
    monitor.look()
    lay(served, *numbered(5))
    server.records()
    lay(served, summary(5, digest=digest(6)), *numbered(4))
    (alert,) = server.records()
    assert (alert.alert, alert.message) == (
        "changed-record",
        f"Record 5 of p is not the one that has been seen: {digest(5)}.",
    )


@pytest.mark.parametrize("created", ["2023-11-14T22:13:20.000000Z", "2033-01-01T00:00:00.000000Z", "never"])
def test_a_record_that_is_not_logged_in_time_is_told_until_it_is(served, monitor, server, clock, created):
    served.grow(3)
    monitor.look()
    lay(served, *numbered(3, created=created))
    assert server.records() == []
    clock.now += 61
    (alert,) = server.records()
    assert alert.alert == "unlogged-record"
    assert alert.facts == {"record": "rec_3", "digest": digest(3)}
    served.grow(4)
    monitor.look()
    assert server.records() == []


def test_a_disk_that_is_full_loses_nothing_and_is_said(served, state, clock, monkeypatch):
    served.grow(300)
    state._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="does not take what was seen"):
        watching(served, state, clock).look()
    state._database.execute("PRAGMA max_page_count = 100000")
    assert watching(served, state, clock).look() == []
    assert state.read == 300


def test_records_that_come_to_no_end_are_given_up(served, server):
    def page(request):
        after = None if request.url.params.get("limit") == "1" else "rec_7"
        return httpx2.Response(200, json={"object": "list", "data": [summary(7)], "after": after})

    served.replies["/v1/records"] = page
    with pytest.raises(UnexpectedReply, match="no order"):
        server.records()


@pytest.mark.parametrize("number", [0, 1 << 53, 1 << 70])
def test_a_number_that_no_record_has_is_refused(served, server, number):
    served.replies["/v1/records"] = {"object": "list", "data": [summary(number)], "after": None}
    with pytest.raises(UnexpectedReply):
        server.records()
