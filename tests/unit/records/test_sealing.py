"""What is private in a record is nowhere in the files, and opens for nobody without its keys."""

import asyncio
import json

import pytest
from sqlalchemy import insert, select, update
from test_store import answer, prepared

from tests.vaults import KeysInMemory, make_vault, signing
from transom.errors import NotFound, StorageError
from transom.records.sealing import count_unsealed, seal_earlier
from transom.records.store import RecordStore
from transom.schema.canonical import sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.openings import verify_openings
from transom.schema.record import PREDICATE_TYPE
from transom.storage.tables import data_keys, records
from transom.storage.vault import Vault
from transom.tlog.entries import Entry
from transom.tlog.sequencing import read_entries

pytestmark = pytest.mark.anyio

PROMPT, ANSWER, STOP = "a secret prompt", "a secret answer", "a secret stop"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def database(tmp_path):
    database = prepared(f"sqlite:///{tmp_path}/transom.db", "local", "other")
    yield database
    database.close()


@pytest.fixture
def vault():
    return make_vault()


@pytest.fixture
def store(database, vault):
    return RecordStore(database, vault, signing)


def private(project_id="local", **changes):
    result = SequenceResult(tokens=[TokenLogprob(7, -0.5, 1)], text=ANSWER, finish_reason="stop")
    fields = {
        "request": {"prompt": PROMPT, "stop": STOP},
        "sampling": SamplingParams(seed=1, max_tokens=1, stop=(STOP,)),
        "sequences": [(0, 0, result)],
    }
    return answer(project_id, **(fields | changes))


def found_in(folder, *texts):
    """Files of the database that hold one of the texts."""
    return sorted(
        path.name
        for path in folder.glob("transom.db*")
        for text in texts
        if text.encode() in path.read_bytes()
    )


def stored_openings(database):
    query = select(records.c.openings).order_by(records.c.sequence)
    return database.read_sync(lambda connection: connection.execute(query).scalars().all())


async def store_unsealed(database, store, count):
    """Records as a database from before there was a vault holds them."""
    made = [await store.append(private()) for _ in range(count)]

    def undo(connection):
        for record in made:
            plain = update(records).where(records.c.id == record.id).values(openings=record.openings)
            connection.execute(plain)
        connection.execute(data_keys.delete())

    await database.write(undo)
    return made


async def test_neither_prompt_nor_answer_nor_stop_string_is_in_any_file(store, database, tmp_path):
    await asyncio.gather(
        *(store.append(private(project)) for project in ("local", "other") for _ in range(40))
    )
    assert (tmp_path / "transom.db-wal").stat().st_size > 0
    assert found_in(tmp_path, PROMPT, ANSWER, STOP) == []
    database.scrub()
    assert found_in(tmp_path, PROMPT, ANSWER, STOP) == []
    assert found_in(tmp_path, PREDICATE_TYPE) == ["transom.db"]


async def test_the_first_record_of_a_project_and_the_next_are_sealed_by_one_key(store, database, vault):
    assert vault.at_hand("local") is None
    stored = [await store.append(private()) for _ in range(3)]
    query = select(data_keys.c.project_id, data_keys.c.version, data_keys.c.seals)
    assert await database.read(lambda connection: connection.execute(query).all()) == [("local", 1, 3)]
    for record in stored:
        assert await store.get(record.id, record.project_id) == record


async def test_a_record_of_an_unknown_project_makes_no_key(store, database):
    with pytest.raises(NotFound):
        await store.append(private("nowhere"))
    assert await database.read(lambda connection: connection.execute(select(data_keys)).all()) == []


async def test_openings_that_were_swapped_between_records_do_not_open(store, database):
    one, two = [await store.append(private()) for _ in range(2)]
    first, second = stored_openings(database)

    def swap(connection):
        for record, openings in ((one, second), (two, first)):
            swapped = update(records).where(records.c.id == record.id).values(openings=openings)
            connection.execute(swapped)

    await database.write(swap)
    for record in (one, two):
        with pytest.raises(StorageError, match=record.id):
            await store.get(record.id, record.project_id)
    assert len((await store.page("local")).data) == 2


async def test_what_became_of_a_data_key_is_noticed_by_a_server_that_remembers_it(store, database, vault):
    """A second process destroys the key between the sealing of a record and its write."""
    before = await store.append(private())
    beside = Vault(KeysInMemory(vault._source.keys))
    await database.write(lambda connection: beside.destroy(connection, "local"))
    after = await store.append(private())
    assert (await store.get(before.id, before.project_id)).openings is None
    assert await store.get(after.id, after.project_id) == after


async def test_shredding_makes_all_of_a_projects_openings_unreadable_and_keeps_its_statements(
    store, database, tmp_path
):
    mine, theirs = await store.append(private()), await store.append(private("other"))
    wrapped = (await database.read(lambda c: c.execute(select(data_keys.c.wrapped)).scalars().all()))[0]
    assert await store.shred("local") == 1
    shredded = await store.get(mine.id, mine.project_id)
    assert (shredded.openings, shredded.statement) == (None, mine.statement)
    assert shredded.view().openings is None
    assert (await store.get(theirs.id, theirs.project_id)).openings == theirs.openings
    assert [path.name for path in tmp_path.glob("transom.db*") if wrapped in path.read_bytes()] == []
    assert (await store.append(private())).sequence == 2
    assert await store.shred("nowhere") == 0


async def test_records_from_before_the_vault_are_read_as_they_are(store, database):
    made = await store_unsealed(database, store, 2)
    for record in made:
        found = await store.get(record.id, record.project_id)
        assert found == record
        assert verify_openings(json.loads(found.statement), json.loads(found.openings)) == []
    assert await database.read(count_unsealed) == 2


async def test_records_from_before_the_vault_are_sealed_by_command_and_leave_no_trace(
    store, database, vault, tmp_path, monkeypatch
):
    made = await store_unsealed(database, store, 7)
    assert found_in(tmp_path, PROMPT) != []
    monkeypatch.setattr("transom.records.sealing._BATCH", 3)
    assert await asyncio.to_thread(seal_earlier, database, vault) == 7
    assert found_in(tmp_path, PROMPT, ANSWER, STOP) == []
    assert await database.read(count_unsealed) == 0
    for record in made:
        assert await store.get(record.id, record.project_id) == record
    assert await asyncio.to_thread(seal_earlier, database, vault) == 0


async def test_sealing_that_is_interrupted_is_finished_by_the_next(store, database, vault, monkeypatch):
    made = await store_unsealed(database, store, 5)
    monkeypatch.setattr("transom.records.sealing._BATCH", 2)
    tries = []

    def fail_later(connection, project_id, seals, charge=vault.charge):
        tries.append(project_id)
        if len(tries) == 4:
            raise KeyboardInterrupt
        return charge(connection, project_id, seals)

    with monkeypatch.context() as patch:
        patch.setattr(vault, "charge", fail_later)
        with pytest.raises(StorageError):
            await asyncio.to_thread(seal_earlier, database, vault)
    assert await database.read(count_unsealed) == 3
    assert await asyncio.to_thread(seal_earlier, database, vault) == 3
    for record in made:
        assert await store.get(record.id, record.project_id) == record


async def test_a_record_that_cannot_be_stored_hurts_none_that_it_meets(store):
    twice = private()
    await store.append(twice)
    both = [private(), twice, private("nowhere"), private("other"), private()]
    outcomes = await asyncio.gather(*map(store.append, both), return_exceptions=True)
    assert [isinstance(each, Exception) for each in outcomes] == [False, True, True, False, False]
    for outcome in outcomes:
        if not isinstance(outcome, Exception):
            assert await store.get(outcome.id, outcome.project_id) == outcome


async def test_a_database_that_lies_about_the_project_of_a_record_does_not_open_it(store, database):
    record = await store.append(private())
    await store.append(private("other"))
    moved = update(records).where(records.c.id == record.id).values(project_id="other", sequence=2)
    await database.write(lambda connection: connection.execute(moved).rowcount)
    with pytest.raises(StorageError, match="does not open"):
        await store.get(record.id, "other")


async def test_an_earlier_database_gets_the_table_of_keys_and_keeps_its_records(tmp_path):
    """Migrating from the schema of the first release, with a record in it."""
    from alembic import command
    from alembic.config import Config

    from transom.storage import migrate as module
    from transom.storage.database import Database

    database = Database(f"sqlite:///{tmp_path}/earlier.db")

    def first_release(connection):
        config = Config()
        config.set_main_option("script_location", str(module._SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = "(id, name, created, last_sequence)"
        connection.exec_driver_sql(f"INSERT INTO projects {columns} VALUES ('local', '', 0, 1)")
        row = {column.name: "" for column in records.c if not column.nullable}
        row |= {"id": "rec_" + "0" * 26, "project_id": "local", "digest": sha256(b"{}")}
        row |= {"sequence": 1, "key_id": None, "created": answer().answered, "status": "complete"}
        del row["log_index"]  # there was no log
        connection.execute(insert(records).values(row | {"statement": b"{}", "openings": b'{"a": 1}'}))

    database.write_sync(first_release)
    module.migrate(database)
    vault = make_vault()
    store = RecordStore(database, vault, signing)
    assert (await store.get("rec_" + "0" * 26, "local")).openings == b'{"a": 1}'
    assert await asyncio.to_thread(seal_earlier, database, vault) == 1
    earlier = await store.get("rec_" + "0" * 26, "local")
    assert earlier.openings == b'{"a": 1}'
    # It is in the log, and those that come are after it.
    assert earlier.log_index == 0
    assert earlier.view().envelope.signatures == ()
    assert database.read_sync(lambda connection: read_entries(connection, 0, 9)) == [
        Entry("record", sha256(b"{}")).content
    ]
    assert (await store.append(answer())).log_index == 1
    database.close()
