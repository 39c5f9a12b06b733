"""Databases with the tables in them, of each dialect, and how to open gateways on them."""

from __future__ import annotations

import pytest

from tests.quotas.gateway import Bench
from transom.storage.database import Database
from transom.storage.migrate import migrate


def opened(url):
    database = Database(url)
    migrate(database)
    return database


@pytest.fixture
def bench(database_url):
    """Gateways of the real kind, on each dialect."""
    database = opened(database_url)
    yield Bench(database, database_url)
    database.close()


@pytest.fixture
def embedded(tmp_path):
    """Gateways of the real kind, on SQLite."""
    url = f"sqlite:///{tmp_path}/transom.db"
    database = opened(url)
    yield Bench(database, url)
    database.close()


@pytest.fixture
def naive(tmp_path):
    """Gateways that read and then write."""
    url = f"sqlite:///{tmp_path}/naive.db"
    database = opened(url)
    yield Bench(database, url, kind="naive")
    database.close()
