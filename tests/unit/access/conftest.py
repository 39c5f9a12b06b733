"""An office for each test, on SQLite."""

from __future__ import annotations

import pytest

from tests.offices import open_desk


@pytest.fixture
def desk(tmp_path):
    with open_desk(f"sqlite:///{tmp_path}/transom.db") as desk:
        yield desk
