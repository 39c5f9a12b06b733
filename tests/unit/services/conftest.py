"""An office for each test, on SQLite."""

from __future__ import annotations

import pytest

from tests import databases
from tests.offices import open_desk


@pytest.fixture
def desk(tmp_path):
    with open_desk(databases.fresh(tmp_path)) as desk:
        yield desk
