"""A database for each test, empty and at the newest schema: on SQLite, or where TRANSOM_TEST_DATABASE says so
on PostgreSQL.

Migrating each test's own would take most of its time, so each is a copy of one that was migrated.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import postgres
from transom.storage.database import Database
from transom.storage.migrate import migrate

ON_POSTGRESQL = os.environ.get("TRANSOM_TEST_DATABASE", "sqlite") == "postgresql"

only_sqlite = pytest.mark.skipif(ON_POSTGRESQL, reason="looks into the file of SQLite")

_KEPT = 16
"""How many databases there are before those that nobody is in are dropped; each takes some MiB of disk."""

_made: list[str] = []
_by_folder: dict[Path, str] = {}


def fresh(folder: Path) -> str:
    """URL of the database of a folder; the same each time, so that a server can be started there again."""
    if ON_POSTGRESQL:
        if folder not in _by_folder:
            _by_folder[folder] = cluster().url(_create())
        return _by_folder[folder]
    file = folder / "transom.db"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)
        file.write_bytes(_migrated_file())
    return f"sqlite:///{file}"


@cache
def cluster() -> postgres.Cluster:
    """The PostgreSQL server of this run."""
    if postgres.programs() is None:
        pytest.fail("PostgreSQL is not installed; run scripts/test, or scripts/install-services")
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres.cluster())


@cache
def _migrated_file() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder, "transom.db")
        _migrate(f"sqlite:///{file}")
        return file.read_bytes()


@cache
def _template() -> str:
    url = cluster().create()
    _migrate(url)
    return url.rpartition("/")[2]


def _create() -> str:
    if len(_made) >= _KEPT:
        used = set(cluster().execute("SELECT datname FROM pg_stat_activity"))
        # Somebody may be about to open the latest.
        for name in [each for each in _made[: -_KEPT // 2] if each not in used]:
            cluster().execute(f"DROP DATABASE {name}")
            _made.remove(name)
    _made.append(cluster().create(template=_template()).rpartition("/")[2])
    return _made[-1]


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()
