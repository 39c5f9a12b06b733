"""A stage of its own for whoever tests the programme."""

import pytest
from programme_stage import Stage


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()
