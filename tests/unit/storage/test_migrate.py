"""Migrations lead to the tables that the code uses."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.storage.tables import UtcTime, metadata


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/with 100% of it.db")
    yield database
    database.close()


def differences(connection):
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)


def names(constraints):
    return sorted(constraint["name"] for constraint in constraints)


def test_migrations_produce_exactly_the_metadata(database):
    assert database.read_sync(differences) != []
    migrate(database)
    assert database.read_sync(differences) == []


def test_migrations_name_every_constraint_as_the_metadata_does(database, tmp_path):
    direct = Database(f"sqlite:///{tmp_path}/direct.db")
    direct.write_sync(metadata.create_all)
    migrate(database)

    def constraints(connection):
        look = inspect(connection)
        return {
            table: (
                look.get_pk_constraint(table)["name"],
                names(look.get_foreign_keys(table)),
                names(look.get_unique_constraints(table)),
                names(look.get_indexes(table)),
            )
            for table in metadata.tables
        }

    assert database.read_sync(constraints) == direct.read_sync(constraints)
    direct.close()


def test_a_second_migration_does_nothing(database):
    migrate(database)
    migrate(database)
    assert database.read_sync(differences) == []


def test_a_migration_that_fails_leaves_nothing_behind(database):
    database.write_sync(metadata.tables["projects"].create)
    database.write_sync(lambda connection: connection.exec_driver_sql("CREATE TABLE records (x)") and None)
    with pytest.raises(OperationalError, match="already exists"):
        migrate(database)
    assert database.read_sync(lambda connection: inspect(connection).get_table_names()) == [
        "projects",
        "records",
    ]


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_storage_to_the_microsecond(moment):
    stored = UtcTime().process_bind_param(moment, None)
    assert UtcTime().process_result_value(stored, None) == moment


def test_a_moment_without_a_zone_is_refused_and_any_zone_is_the_same_moment():
    moment = datetime(2026, 1, 31, 9, 5, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=-7)))
    assert UtcTime().process_bind_param(elsewhere, None) == UtcTime().process_bind_param(moment, None)
    with pytest.raises(TypeError):
        UtcTime().process_bind_param(moment.replace(tzinfo=None), None)
