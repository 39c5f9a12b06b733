"""A door to knock at: the whole application over a fake backend, in this process."""

from __future__ import annotations

import pytest
import structlog

from tests.fakes import make_root
from tests.http.door import open_door
from transom.backends.tokenizer import LocalTokenizer


@pytest.fixture(scope="session", autouse=True)
def quiet_logs():
    """Log to nowhere: structlog's own default draws each traceback with all its locals, for seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return LocalTokenizer(make_root(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="session")
async def shared_door(tokenizer, tmp_path_factory):
    async with open_door(tmp_path_factory.mktemp("home"), tokenizer) as door:
        yield door


@pytest.fixture
async def door(shared_door):
    """One door for all tests that only ask; nobody turns a knob of its backend."""
    return shared_door


@pytest.fixture
async def own_door(tokenizer, tmp_path):
    """A door of the test's own, for whoever turns knobs or looks into the database."""
    async with open_door(tmp_path, tokenizer) as door:
        yield door
