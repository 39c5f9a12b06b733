"""The contract of `Database` on PostgreSQL, where it is kept by other means than on SQLite."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import InternalError

from transom.errors import ConfigurationError, StorageError
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.storage.tables import metadata


@pytest.fixture
def url(postgres_cluster):
    return postgres_cluster.create()


@pytest.fixture
def database(url):
    database = Database(url)
    database.write_sync(lambda connection: run(connection, "CREATE TABLE lines (line TEXT UNIQUE)"))
    yield database
    database.close()


def run(connection, sql, **values):
    connection.execute(text(sql), values)


def add(line):
    return lambda connection: run(connection, "INSERT INTO lines VALUES (:line)", line=line)


def lines(connection):
    return sorted(connection.execute(text("SELECT line FROM lines")).scalars())


def backend(connection):
    return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


@pytest.mark.parametrize("url", ["mysql://u@h/d", "postgresql://u@h/d", "postgresql+asyncpg://u@h/d"])
def test_another_database_or_driver_is_refused_by_name(url):
    with pytest.raises(
        ConfigurationError, match=r"is not served: use sqlite:///FILE, or postgresql\+psycopg"
    ):
        Database(url)


def test_a_connection_that_is_lost_in_a_write_fails_it_and_the_next_write_has_a_new_one(url, database):
    other = Database(url)

    def cut(connection):
        add("lost")(connection)
        pid = backend(connection)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other.read_sync, lambda c: run(c, f"SELECT pg_terminate_backend({pid})")).result()
        run(connection, "SELECT 1")

    async def batch():
        """Writes that queue up behind one that waits share its successor's commit."""
        begun, gate = threading.Event(), threading.Event()

        def wait(_connection):
            begun.set()
            gate.wait(10)

        first = asyncio.create_task(database.write(wait))
        await asyncio.to_thread(begun.wait, 10)
        writes = [asyncio.create_task(database.write(write)) for write in (add("before"), cut, add("after"))]
        while len(database._writer._queue) < len(writes):  # noqa: ASYNC110  # another thread empties it
            await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(first, *writes, return_exceptions=True)

    first, *lost = asyncio.run(batch())
    assert first is None
    assert [type(each) for each in lost] == [StorageError] * 3
    database.write_sync(add("kept"))
    assert database.read_sync(lines) == ["kept"]
    other.close()


def test_a_connection_that_was_lost_between_two_writes_fails_one_of_them_and_no_more(url, database):
    other = Database(url)
    pid = database.write_sync(backend)
    other.read_sync(lambda connection: run(connection, f"SELECT pg_terminate_backend({pid}, 5000)"))
    with pytest.raises(StorageError):
        database.write_sync(add("lost"))
    database.write_sync(add("kept"))
    assert database.read_sync(lines) == ["kept"]
    other.close()


def test_readers_find_a_new_connection_by_themselves(url, database):
    other = Database(url)
    pid = database.read_sync(backend)
    other.read_sync(lambda connection: run(connection, f"SELECT pg_terminate_backend({pid}, 5000)"))
    assert database.read_sync(lines) == []
    other.close()


def test_nobody_changes_what_a_write_has_read(url, database):
    """Without the writers' lock both would count the same lines, and one would be undone."""

    def increment(connection):
        count = len(lines(connection))
        run(connection, "SELECT pg_sleep(0.002)")
        add(f"{count:03}")(connection)

    other = Database(url)
    threads = [
        threading.Thread(target=lambda one=one: [one.write_sync(increment) for _ in range(20)])
        for one in (database, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert database.read_sync(lines) == [f"{i:03}" for i in range(40)]


def test_batches_that_touch_the_same_rows_in_opposite_orders_do_not_lock_each_other_out(url, database):
    database.write_sync(lambda connection: [add(f"{i}")(connection) for i in range(2)] and None)

    def touch(first, second):
        def write(connection):
            for line in (first, second):
                run(connection, "UPDATE lines SET line = line WHERE line = :line", line=line)
                run(connection, "SELECT pg_sleep(0.005)")

        return write

    other = Database(url)
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(one.write_sync, write)
            for _ in range(10)
            for one, write in ((database, touch("0", "1")), (other, touch("1", "0")))
        ]
        assert [each.exception() for each in done] == [None] * 20
    other.close()


def test_a_write_that_raises_is_undone_alone(database):
    def write(connection):
        add("undone")(connection)
        run(connection, "SELECT no_such_column")

    with pytest.raises(Exception, match="no_such_column"):
        database.write_sync(write)
    database.write_sync(add("kept"))
    assert database.read_sync(lines) == ["kept"]


def test_a_read_cannot_write_and_sees_one_state(database):
    with pytest.raises(InternalError, match="read-only"):
        database.read_sync(add("smuggled"))

    def read_twice(connection):
        before = lines(connection)
        database.write_sync(add("meanwhile"))
        return before, lines(connection)

    assert database.read_sync(read_twice) == ([], [])
    assert database.read_sync(lines) == ["meanwhile"]


def test_the_sessions_are_durable_and_patient_for_so_long(database):
    def show(name):
        return database.write_sync(lambda connection: connection.execute(text(f"SHOW {name}")).scalar_one())

    assert show("synchronous_commit") == "on"
    assert show("transaction_isolation") == "read committed"
    assert (show("lock_timeout"), show("statement_timeout")) == ("10s", "1min")
    assert show("idle_in_transaction_session_timeout") == "10s"


def test_gateways_that_start_together_migrate_once(url):
    databases = [Database(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert [each.exception() for each in [pool.submit(migrate, one) for one in databases]] == [None] * 4

    def differences(connection):
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    assert databases[0].read_sync(differences) == []
    for database in databases:
        database.close()


def test_migrations_name_every_constraint_as_the_metadata_does(url, postgres_cluster):
    migrated, direct = Database(url), Database(postgres_cluster.create())
    migrate(migrated)
    direct.write_sync(metadata.create_all)

    def names(connection):
        look = inspect(connection)
        kinds = (
            look.get_foreign_keys,
            look.get_unique_constraints,
            look.get_indexes,
            look.get_check_constraints,
        )
        return {
            table: [sorted(each["name"] for each in kind(table)) for kind in kinds]
            for table in metadata.tables
        }

    assert migrated.read_sync(names) == direct.read_sync(names)
    migrated.close()
    direct.close()


def test_a_migration_that_fails_leaves_nothing_behind(url):
    database = Database(url)
    database.write_sync(lambda connection: run(connection, "CREATE TABLE records (x INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        migrate(database)
    assert database.read_sync(lambda connection: inspect(connection).get_table_names()) == ["records"]
    database.close()
