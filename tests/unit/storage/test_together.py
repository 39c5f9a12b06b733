"""Writes of one kind that meet in a commit: one call for all, and nobody pays for another's mistake."""

from __future__ import annotations

import asyncio
import threading

import pytest
from sqlalchemy import event, text

from transom.errors import StorageError
from transom.storage.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/transom.db")
    database.write_sync(lambda c: c.execute(text("CREATE TABLE lines (line TEXT UNIQUE)")) and None)
    yield database
    database.close()


@pytest.fixture
async def held(database):
    """The writer, held inside a write until it is released: what is queued meanwhile is one batch."""
    entered, opened = threading.Event(), threading.Event()

    def wait(_connection):
        entered.set()
        assert opened.wait(10)

    holding = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(entered.wait, 10)
    yield opened
    opened.set()
    await holding


def insert(connection, line):
    connection.execute(text("INSERT INTO lines VALUES (:line)"), {"line": line})


def lines(connection):
    return list(connection.execute(text("SELECT line FROM lines ORDER BY rowid")).scalars())


class Adder:
    """Adds lines, and remembers in which calls; some it refuses, after it has added them."""

    def __init__(self, *refused):
        self.calls = []
        self._refused = set(refused)

    def add(self, connection, items):
        self.calls.append(list(items))
        for item in items:
            insert(connection, item)
        for item in items:
            if item in self._refused:
                raise KeyError(item)
        return [item.upper() for item in items]


async def two_turns():
    """In the first turn of the loop writes are asked for, in the second they are queued."""
    for _ in range(2):
        await asyncio.sleep(0)


async def together(database, held, *writes):
    tasks = [asyncio.create_task(write) for write in writes]
    await two_turns()
    held.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_that_cannot_be_written_hurts_no_other(database, held):
    adder = Adder("bad")
    writes = (database.write_together(adder.add, line) for line in ("a", "bad", "b"))
    first, bad, last = await together(database, held, *writes)
    assert (first, last) == ("A", "B")
    assert isinstance(bad, KeyError)
    assert adder.calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert await database.read(lines) == ["a", "b"]


async def test_a_result_for_each_or_none_is_right(database, held):
    def too_few(connection, items):
        insert(connection, items[0])
        return []

    outcomes = await together(database, held, *(database.write_together(too_few, x) for x in "ab"))
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    assert await database.read(lines) == []


async def test_a_failing_commit_fails_all_of_them(database, held):
    commits = []

    def fail_the_second(_connection):
        # The first is that of the write which holds the others up.
        commits.append(None)
        if len(commits) == 2:
            raise OSError("the disk is gone")

    adder = Adder("bad")
    event.listen(database._writing, "commit", fail_the_second)
    writes = (database.write_together(adder.add, line) for line in ("a", "bad", "b"))
    first, bad, last = await together(database, held, *writes)
    assert isinstance(first, StorageError)
    assert isinstance(last, StorageError)
    assert first is not last
    assert isinstance(bad, KeyError)
    assert await database.read(lines) == []


async def test_those_of_one_commit_are_one_call_in_the_place_of_the_first(database, held):
    adder, other = Adder(), Adder()

    def alone(connection):
        insert(connection, "alone")

    await together(
        database,
        held,
        database.write_together(adder.add, "a"),
        database.write(alone),
        database.write_together(other.add, "x"),
        database.write_together(adder.add, "b"),
    )
    assert (adder.calls, other.calls) == ([["a", "b"]], [["x"]])
    assert await database.read(lines) == ["a", "b", "alone", "x"]


async def test_who_waits_for_one_write_before_the_next_has_them_in_order(database):
    adder = Adder()
    for line in "abc":
        await database.write_together(adder.add, line)
        await database.write(lambda connection, line=line: insert(connection, line + line))
    assert await database.read(lines) == ["a", "aa", "b", "bb", "c", "cc"]


async def test_a_cancelled_caller_takes_nothing_back(database, held):
    adder = Adder()
    leaving = asyncio.create_task(database.write_together(adder.add, "leaving"))
    await asyncio.sleep(0)  # asked for, and not yet queued
    leaving.cancel()
    [staying] = await together(database, held, database.write_together(adder.add, "staying"))
    assert staying == "STAYING"
    assert leaving.cancelled()
    assert await database.read(lines) == ["leaving", "staying"]


async def test_callers_of_several_loops_and_of_none_are_all_told(database, held):
    adder, results = Adder(), []

    def in_a_loop_of_its_own():
        results.append(asyncio.run(database.write_together(adder.add, "elsewhere")))

    def without_a_loop():
        results.append(database.write_sync(lambda connection: insert(connection, "sync")))

    threads = [threading.Thread(target=each) for each in (in_a_loop_of_its_own, without_a_loop)]
    for thread in threads:
        thread.start()
    assert await together(database, held, database.write_together(adder.add, "here")) == ["HERE"]
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
    assert sorted(results, key=str) == ["ELSEWHERE", None]


async def test_a_loop_that_ended_before_its_commit_does_not_stop_the_writer(database, held):
    adder = Adder()

    async def leave():
        asyncio.get_running_loop().create_task(database.write_together(adder.add, "orphan"))
        await asyncio.sleep(0)

    await asyncio.to_thread(asyncio.run, leave())
    assert await together(database, held, database.write_together(adder.add, "next")) == ["NEXT"]
    assert await database.read(lines) == ["orphan", "next"]
