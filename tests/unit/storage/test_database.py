"""The contract in the docstring of `Database`, clause by clause, the unhappy ones first."""

import asyncio
import signal
import stat
import subprocess
import sys
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from transom.errors import ConfigurationError, StorageError
from transom.storage.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/transom.db"


@pytest.fixture
def database(url):
    database = Database(url)
    database.write_sync(lambda connection: run(connection, "CREATE TABLE lines (line TEXT UNIQUE)"))
    yield database
    database.close()


def run(connection, sql, **values):
    connection.execute(text(sql), values)


def add(line):
    def write(connection):
        run(connection, "INSERT INTO lines VALUES (:line)", line=line)
        return line

    return write


def add_and_raise(line):
    def write(connection):
        add(line)(connection)
        raise KeyError(line)

    return write


def lines(connection):
    return sorted(connection.execute(text("SELECT line FROM lines")).scalars())


class Gate:
    """Holds the writer inside a write, so that what follows queues up to one batch."""

    def __init__(self, database):
        self.entered, self.opened = threading.Event(), threading.Event()
        self.write = asyncio.create_task(database.write(self._wait))

    def _wait(self, _connection):
        self.entered.set()
        assert self.opened.wait(10)

    async def shut(self):
        await asyncio.to_thread(self.entered.wait, 10)
        return self


async def queued(*writes):
    tasks = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)
    return tasks


@pytest.fixture
def commits(database):
    """Counts commits; `fail` makes the next one fail, after everything was executed."""

    class Commits:
        count = 0
        fail = False

    state = Commits()

    @event.listens_for(database._writing, "commit")
    def _on_commit(_connection):
        state.count += 1
        if state.fail:
            state.fail = False
            raise OSError("the disk is gone")

    return state


async def test_a_crash_between_execute_and_commit_leaves_nothing_and_acknowledges_nothing(database, commits):
    commits.fail = True
    with pytest.raises(StorageError, match="the disk is gone"):
        await database.write(add("lost"))
    assert await database.read(lines) == []


async def test_a_failing_commit_fails_the_whole_batch_and_the_writer_goes_on(database, commits):
    gate = await Gate(database).shut()
    tasks = await queued(*(database.write(add(f"lost {i}")) for i in range(5)))
    # The gate's transaction has begun already, so the next one is that of the batch of five.
    event.listen(database._writing, "begin", lambda *_: setattr(commits, "fail", True), once=True)
    gate.opened.set()
    await gate.write
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(failure) for failure in failures] == [StorageError] * 5
    assert len({id(failure) for failure in failures}) == 5
    assert await database.write(add("kept")) == "kept"
    assert await database.read(lines) == ["kept"]


async def test_a_write_that_raises_is_undone_alone(database):
    gate = await Gate(database).shut()
    tasks = await queued(
        database.write(add("before")), database.write(add_and_raise("undone")), database.write(add("after"))
    )
    gate.opened.set()
    before, undone, after = await asyncio.gather(*tasks, return_exceptions=True)
    assert (before, after) == ("before", "after")
    assert isinstance(undone, KeyError)
    assert await database.read(lines) == ["after", "before"]
    await gate.write


async def test_a_write_that_raises_keeps_its_own_error_when_the_commit_fails_too(database, commits):
    commits.fail = True
    with pytest.raises(KeyError):
        await database.write(add_and_raise("undone"))


async def test_a_write_that_exits_takes_neither_the_thread_nor_the_others_with_it(database):
    with pytest.raises(StorageError):
        await database.write(lambda _connection: sys.exit(1))
    assert await database.write(add("still here")) == "still here"


async def test_when_sqlite_gives_up_the_whole_transaction_no_write_of_the_batch_is_acknowledged(database):
    """As it does when the disk is full: the savepoints are gone, and with them the writes before."""
    gate = await Gate(database).shut()
    give_up = "INSERT OR ROLLBACK INTO lines VALUES ('first')"
    tasks = await queued(
        database.write(add("first")),
        database.write(lambda connection: run(connection, give_up)),
        database.write(add("last")),
    )
    gate.opened.set()
    await gate.write
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageError] * 3
    assert await database.read(lines) == []
    assert await database.write(add("first")) == "first"


async def test_when_sqlite_gives_up_the_transaction_of_a_single_write_it_is_not_acknowledged(database):
    await database.write(add("first"))
    with pytest.raises(StorageError, match="not committed"):
        await database.write(
            lambda connection: run(connection, "INSERT OR ROLLBACK INTO lines VALUES ('first')")
        )
    assert await database.write(add("last")) == "last"
    assert await database.read(lines) == ["first", "last"]


async def test_a_cancelled_caller_takes_nothing_back_and_spoils_nothing(database):
    gate = await Gate(database).shut()
    cancelled, other = await queued(database.write(add("cancelled")), database.write(add("other")))
    cancelled.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await other == "other"
    assert await database.read(lines) == ["cancelled", "other"]
    await gate.write


async def test_nothing_is_acknowledged_before_its_commit_is_over(database):
    reached, go_on = threading.Event(), threading.Event()

    @event.listens_for(database._writing, "commit")
    def _on_commit(_connection):
        reached.set()
        assert go_on.wait(10)

    (task,) = await queued(database.write(add("slow")))
    await asyncio.to_thread(reached.wait, 10)
    await asyncio.sleep(0.05)
    assert not task.done()
    go_on.set()
    assert await task == "slow"


async def test_writes_that_queued_up_share_one_commit(database, commits):
    gate = await Gate(database).shut()
    tasks = await queued(*(database.write(add(f"{i}")) for i in range(100)))
    gate.opened.set()
    await asyncio.gather(gate.write, *tasks)
    assert commits.count == 2


async def test_a_full_queue_makes_callers_wait_and_loses_nothing(url):
    database = Database(url, capacity=2)
    await database.write(lambda connection: run(connection, "CREATE TABLE lines (line TEXT UNIQUE)"))
    gate = await Gate(database).shut()
    tasks = await queued(*(database.write(add(f"{i:02}")) for i in range(20)))
    await asyncio.sleep(0.05)
    assert len(database._writer._queue) == 2
    gate.opened.set()
    await asyncio.gather(gate.write, *tasks)
    assert len(await database.read(lines)) == 20
    database.close()


async def test_closing_commits_what_is_queued_and_refuses_the_rest(url, database):
    gate = await Gate(database).shut()
    tasks = await queued(*(database.write(add(f"{i}")) for i in range(3)))
    closing = asyncio.create_task(asyncio.to_thread(database.close))
    while not database._writer._closed:  # noqa: ASYNC110 - another thread sets it
        await asyncio.sleep(0)
    gate.opened.set()
    assert await asyncio.gather(*tasks) == ["0", "1", "2"]
    await asyncio.gather(closing, gate.write)
    with pytest.raises(StorageError, match="closed"):
        await database.write(add("late"))
    with pytest.raises(StorageError, match="closed"):
        database.write_sync(add("late"))


async def test_a_read_cannot_write(database):
    with pytest.raises(OperationalError, match="readonly"):
        await database.read(add("smuggled"))


async def test_a_read_sees_one_state_and_does_not_wait_for_a_write(database):
    def read_twice(connection):
        before = lines(connection)
        database.write_sync(add("meanwhile"))
        return before, lines(connection)

    assert await database.read(read_twice) == ([], [])
    assert database.read_sync(lines) == ["meanwhile"]


def test_two_processes_that_read_and_then_write_wait_for_each_other(url, database):
    def increment(connection):
        count = len(lines(connection))
        add(f"{count:03}")(connection)

    other = Database(url)
    threads = [
        threading.Thread(target=lambda one=one: [one.write_sync(increment) for _ in range(25)])
        for one in (database, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert database.read_sync(lines) == [f"{i:03}" for i in range(50)]


def test_the_connection_of_the_writer_is_durable(database):
    def pragma(name):
        return database.write_sync(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") == 10_000


def test_only_the_owner_can_read_the_files(tmp_path, database):
    database.write_sync(add("private"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("transom.db*")}
    assert modes["transom.db"] == modes["transom.db-wal"] == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url):
    with pytest.raises(ConfigurationError, match="names no file"):
        Database(url)


def test_damage_is_found(tmp_path, url, database):
    database.write_sync(lambda connection: [add(f"{i:0200}")(connection) for i in range(2000)])
    assert database.check() == []
    database.close()
    path = tmp_path / "transom.db"
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    broken = Database(url)
    assert broken.check() != []
    broken.close()


WRITER = """
import asyncio, sys, threading
from sqlalchemy import text
from transom.storage.database import Database

INSERT = text("INSERT INTO lines VALUES (:line)")

async def main():
    database = Database(sys.argv[1])
    async def one(worker):
        for i in range(100_000):
            line = f"{worker}/{i}"
            await database.write(lambda c: c.execute(INSERT, {"line": line}).rowcount)
            print(line, flush=True)
    await asyncio.gather(*(one(f"{sys.argv[2]}/{worker}") for worker in range(16)))

asyncio.run(main())
"""


def test_a_process_killed_while_writing_loses_nothing_that_it_acknowledged(url, database):
    acknowledged = []
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(attempt)], stdout=subprocess.PIPE, text=True
        )
        with process:
            acknowledged += [process.stdout.readline().strip() for _ in range(100 + 37 * attempt)]
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert len(acknowledged) > 600
    assert database.check() == []
    assert set(acknowledged) <= set(database.read_sync(lines))


_OTHER = """
import sys
from sqlalchemy import text
from transom.storage.database import Database
database = Database(sys.argv[1])
statement = text("INSERT INTO lines VALUES ('" + sys.argv[2] + "')")
database.write_sync(lambda connection: connection.execute(statement) and None)
database.close()
"""


def test_a_second_one_in_the_process_does_not_give_the_files_away(database, url):
    """Whoever closes any descriptor of a file gives up the locks that their process has on it (POSIX).

    SQLite keeps one of the database for as long as it is open. Without it another process that closes the
    database takes itself for the last one, and deletes the write-ahead log that this one goes on writing to.
    """
    Database(url).close()
    for number in range(2):
        subprocess.run([sys.executable, "-c", _OTHER, url, f"other {number}"], check=True, timeout=120)
        database.write_sync(add(f"own {number}"))
    database.close()
    again = Database(url)
    assert again.read_sync(lines) == ["other 0", "other 1", "own 0", "own 1"]
    again.close()
