"""An office for each test, on SQLite; and a stage for whoever tests the programme."""

from __future__ import annotations

import pytest
from programme_stage import Stage

from tests import databases
from tests.offices import open_desk


@pytest.fixture
def desk(tmp_path):
    with open_desk(databases.fresh(tmp_path)) as desk:
        yield desk


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()
