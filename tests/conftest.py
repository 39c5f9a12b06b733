"""Fixtures that every part of the suite shares: tiny model roots, and the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# As the engine's own process has them; both must be set before torch is imported.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from tests import databases
from tests.tiny import make_tiny

ROOT = Path(__file__).resolve().parent.parent
REAL_MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Folder of a tiny model of a family, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            make_tiny(family, made[family])
        return made[family]

    return get


@pytest.fixture(scope="session")
def home() -> Path:
    """The data folder that `scripts/test` prepared, with the real model in its library."""
    folder = Path(os.environ.get("TRANSOM_HOME", ROOT / ".transom"))
    if not (folder / "models" / REAL_MODEL).exists():
        pytest.fail(f"{REAL_MODEL} is not in {folder}; run scripts/test, which prepares it")
    return folder


@pytest.fixture(scope="session")
def postgres_cluster():
    """A PostgreSQL server of this run's own."""
    return databases.cluster()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """URL of an empty database, of each dialect."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/transom.db"
    return request.getfixturevalue("postgres_cluster").create()
