"""Statements that are compiled once: what they touch, what they give back, and how they fail."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, bindparam, insert, update

from transom.errors import StorageError
from transom.storage.database import Database
from transom.storage.prepared import Prepared

lines = Table("lines", MetaData(), Column("line", Text, primary_key=True), Column("count", Integer))
ADD = Prepared(insert(lines))
COUNT = Prepared(
    update(lines)
    .where(lines.c.line == bindparam("which"))
    .values(count=lines.c.count + bindparam("more"))
    .returning(lines.c.count)
)
COUNT_ALL = Prepared(update(lines).values(count=lines.c.count + bindparam("more")))


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/transom.db")
    database.write_sync(lines.create)
    yield database
    database.close()


def row(line, count=0):
    return {"line": line, "count": count}


def test_what_the_database_refuses_is_an_error_of_the_store_and_hurts_nothing_before_it(database):
    database.write_sync(lambda connection: ADD.execute(connection, row("a")))
    for statement, values in ((ADD.execute, row("a")), (ADD.execute_each, [row("b"), row("a")])):
        with pytest.raises(StorageError, match="UNIQUE"):
            database.write_sync(lambda connection, run=statement, values=values: run(connection, values))
    assert database.write_sync(lambda connection: COUNT_ALL.execute(connection, {"more": 1})) == 1


def test_a_parameter_without_a_value_is_named(database):
    with pytest.raises(KeyError, match="count"):
        database.write_sync(lambda connection: ADD.execute(connection, {"line": "a"}))


def test_the_rows_that_many_executions_touched_are_counted_together(database):
    added = database.write_sync(
        lambda connection: ADD.execute_each(connection, [row("a"), row("b"), row("c")])
    )
    assert added == 3
    assert database.write_sync(lambda connection: COUNT_ALL.execute(connection, {"more": 2})) == 3


def test_what_is_returned_is_that_of_the_row_and_none_where_there_is_none(database):
    database.write_sync(lambda connection: ADD.execute_each(connection, [row("a", 5), row("b", 7)]))

    def count(which):
        return database.write_sync(lambda connection: COUNT.returned(connection, {"which": which, "more": 1}))

    assert (count("a"), count("b"), count("c"), count("a")) == (6, 8, None, 7)
