"""Records are durable, numbered without a gap, and listed newest first."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, update

from tests.vaults import KeysInMemory, make_vault, signing
from transom.errors import InvalidRequest, NotFound, StorageError
from transom.records.audit import find_gaps
from transom.records.identifiers import cursor_after, is_record_id, new_record_id, sequence_of
from transom.records.store import RecordStore, owner_of
from transom.schema.canonical import sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.openings import verify_openings
from transom.schema.record import Answer
from transom.storage.database import Database
from transom.storage.master_keys import MasterKeys
from transom.storage.migrate import migrate
from transom.storage.tables import projects
from transom.storage.vault import Vault

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/transom.db"


def prepared(url, *project_ids):
    database = Database(url)
    migrate(database)
    now = datetime.now(UTC)
    rows = [{"id": name, "name": name, "created": now, "last_sequence": 0} for name in project_ids]
    database.write_sync(lambda connection: connection.execute(insert(projects), rows) and None)
    return database


@pytest.fixture
def database(url):
    database = prepared(url, "local", "other")
    yield database
    database.close()


@pytest.fixture
def store(database):
    return RecordStore(database, make_vault(), signing)


def answer(project_id="local", **changes):
    now = datetime.now(UTC)
    sequence = SequenceResult(tokens=[TokenLogprob(7, -0.5, 1)], text=" blue", finish_reason="length")
    fields = {
        "record_id": new_record_id(),
        "project_id": project_id,
        "key_id": None,
        "model": "tiny",
        "deployment": "sha256:" + "d" * 64,
        "endpoint": "/v1/completions",
        "received": now,
        "answered": now,
        "status": "complete",
        "request": {"prompt": "the sky is"},
        "messages": None,
        "prompts": [(1, 2, 3)],
        "sampling": SamplingParams(seed=1, max_tokens=1),
        "seed_source": "server",
        "n": 1,
        "sequences": [(0, 0, sequence)],
    }
    return Answer(**(fields | changes))


async def sequences(store, project_id="local"):
    found, after = [], None
    while True:
        page = await store.page(project_id, after, limit=100)
        found += [summary.sequence for summary in page.data]
        if page.after is None:
            return found[::-1]
        after = page.after


async def test_a_record_that_fails_to_be_stored_leaves_no_gap(store):
    twice = answer()
    await store.append(twice)
    outcomes = await asyncio.gather(
        store.append(answer()), store.append(twice), store.append(answer()), return_exceptions=True
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert await sequences(store) == [1, 2, 3]


async def test_a_failing_commit_acknowledges_no_record_and_leaves_no_gap(store, database):
    def fail(_connection):
        raise OSError("no space left on device")

    event.listen(database._writing, "commit", fail)
    outcomes = await asyncio.gather(*(store.append(answer()) for _ in range(5)), return_exceptions=True)
    event.remove(database._writing, "commit", fail)
    assert all(isinstance(outcome, StorageError) for outcome in outcomes)
    assert (await store.append(answer())).sequence == 1
    assert await sequences(store) == [1]


async def test_200_appends_at_once_are_numbered_without_a_gap_in_each_project(store):
    appends = [store.append(answer(project)) for _ in range(100) for project in ("local", "other")]
    stored = await asyncio.gather(*appends)
    for project in ("local", "other"):
        assert await sequences(store, project) == list(range(1, 101))
    for record in stored:
        statement = json.loads((await store.get(record.id, record.project_id)).statement)
        assert statement["predicate"]["project"] == {"id": record.project_id, "sequence": record.sequence}


async def test_a_cancelled_caller_still_leaves_a_record(store, database):
    task = asyncio.create_task(store.append(interrupted := answer(status="aborted")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.append(answer())
    assert (await store.get(interrupted.record_id, "local")).status == "aborted"
    assert await sequences(store) == [1, 2]


async def test_a_record_of_an_unknown_project_is_refused(store):
    with pytest.raises(NotFound, match="nowhere"):
        await store.append(answer("nowhere"))


async def test_what_was_appended_reads_back_and_verifies(store):
    stored = await store.append(answer())
    assert await store.get(stored.id, "local") == stored
    view = stored.view()
    payload = base64.b64decode(view.envelope.payload)
    assert sha256(payload) == view.digest == stored.digest
    assert json.loads(payload) == view.statement
    assert verify_openings(view.statement, view.openings) == []
    (signature,) = view.envelope.signatures
    assert signature.keyid == signing().key_id
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)
    Ed25519PublicKey.from_public_bytes(signing().public).verify(base64.b64decode(signature.sig), signed)
    assert view.envelope.payloadType == "application/vnd.in-toto+json"
    assert view.created.endswith("Z")
    assert (await store.page("local")).data == (stored.summary(),)


async def test_a_projects_openings_are_shredded_and_its_statements_and_others_stay(store, database):
    mine = [await store.append(answer()) for _ in range(3)]
    other = await store.append(answer("other"))
    assert await store.shred("local") == 3
    assert await store.shred("local") == 0
    for record in mine:
        kept = await store.get(record.id, "local")
        assert (kept.statement, kept.openings) == (record.statement, None)
        assert kept.view().openings is None
    assert await store.get(other.id, "other") == other
    assert await sequences(store) == [1, 2, 3]
    assert database.read_sync(find_gaps) == []


async def test_what_was_asked_before_a_project_was_deleted_leaves_nothing_in_it(store, database):
    gone = update(projects).where(projects.c.id == "other").values(deleted=datetime.now(UTC))
    await database.write(lambda connection: connection.execute(gone).rowcount)
    with pytest.raises(NotFound):
        await store.append(answer("other"))
    assert database.read_sync(find_gaps) == []


async def test_whole_records_come_in_batches_oldest_first(store):
    stored = [await store.append(answer()) for _ in range(5)]
    await store.append(answer("other"))
    assert await store.batch("local", 0, 3) == stored[:3]
    assert await store.batch("local", 3, 3) == stored[3:]
    assert await store.batch("local", 5, 3) == []


async def test_whose_a_record_is_can_be_told_without_reading_it(store, database):
    record = await store.append(answer("other"))
    assert database.read_sync(lambda c: owner_of(c, record.id)) == ("other", None)
    with pytest.raises(NotFound):
        database.read_sync(lambda c: owner_of(c, "rec_nothing"))


@pytest.mark.parametrize(
    "name", ["", "rec_", "rec_" + "u" * 26, "rec_" + "0" * 26, "\ud800", "rec_\0", "x" * 9999]
)
async def test_a_record_that_does_not_exist_is_not_found(store, name):
    with pytest.raises(NotFound):
        await store.get(name, "local")


async def test_a_record_of_another_project_looks_like_none(store):
    stored = await store.append(answer("other"))
    with pytest.raises(NotFound) as foreign:
        await store.get(stored.id, "local")
    with pytest.raises(NotFound) as absent:
        await store.get(missing := new_record_id(), "local")
    assert foreign.value.message.replace(stored.id, missing) == absent.value.message


async def test_pages_are_newest_first_and_do_not_shift_when_records_arrive(store):
    for _ in range(7):
        await store.append(answer())
    first = await store.page("local", limit=3)
    await store.append(answer())
    second = await store.page("local", first.after, limit=3)
    third = await store.page("local", second.after, limit=3)
    numbers = [[summary.sequence for summary in page.data] for page in (first, second, third)]
    assert numbers == [[7, 6, 5], [4, 3, 2], [1]]
    assert third.after is None
    assert (await store.page("other")).data == ()


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "AAAAAAAAAAAA", "cjEAAAAAAAAB\n", "cjEAAAAA", "é", "7", "\ud800"]
)
async def test_a_bad_cursor_is_refused_by_name(store, cursor):
    with pytest.raises(InvalidRequest) as refusal:
        await store.page("local", cursor)
    assert refusal.value.param == "after"


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_a_bad_limit_is_refused_by_name(store, limit):
    with pytest.raises(InvalidRequest) as refusal:
        await store.page("local", limit=limit)
    assert refusal.value.param == "limit"


@given(st.integers(0, 2**56 - 1))
def test_a_cursor_reads_back(sequence):
    assert sequence_of(cursor_after(sequence)) == sequence


def test_record_ids_are_distinct_and_sort_by_time():
    ids = []
    for _ in range(20):
        ids.append(new_record_id())
        time.sleep(0.002)
    assert ids == sorted(set(ids))
    assert all(is_record_id(name) and name == name.lower() and len(name) == 30 for name in ids)


KEYS = MasterKeys({1: bytes(32)}, 1)

APPENDER = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from test_store import KEYS, RecordStore, Database, KeysInMemory, Vault, answer, signing

async def main():
    store = RecordStore(Database(sys.argv[1]), Vault(KeysInMemory(KEYS)), signing)
    async def one():
        while True:
            stored = await store.append(answer())
            print(stored.id, stored.sequence, stored.digest, flush=True)
    await asyncio.gather(*(one() for _ in range(16)))

asyncio.run(main())
"""


def test_a_server_killed_while_recording_keeps_every_acknowledged_record_and_the_numbering(url, request):
    prepared(url, "local").close()
    acknowledged = []
    for attempt in range(3):
        folders = [str(request.path.parent), str(request.config.rootpath)]
        command = [sys.executable, "-c", APPENDER, url, *folders]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            acknowledged += [process.stdout.readline().split() for _ in range(50 + 31 * attempt)]
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
    database = Database(url)
    assert database.check() == []
    assert len(acknowledged) > 200
    vault = Vault(KeysInMemory(KEYS))
    asyncio.run(everything_is_there(RecordStore(database, vault, signing), acknowledged))
    database.close()


async def everything_is_there(store, acknowledged):
    for name, sequence, digest in acknowledged:
        record = await store.get(name, "local")
        assert (
            (str(record.sequence), record.digest)
            == (sequence, digest)
            == (sequence, sha256(record.statement))
        )
        assert verify_openings(json.loads(record.statement), json.loads(record.openings)) == []
    numbers = await sequences(store)
    assert numbers == list(range(1, len(numbers) + 1))
