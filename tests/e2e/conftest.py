"""One real server for the whole of this folder, and a key to it; tiny models for servers of a test's own."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server import Server
from tests.tiny import make_tiny
from transom.backends.library import ModelLibrary
from transom.engine.convert import convert


@pytest.fixture(scope="session")
def server(home, tmp_path_factory):
    """A running server with SmolLM2; anonymous callers are let in too."""
    running = Server(tmp_path_factory.mktemp("home"), home / "models", allow_anonymous="true")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def key(server) -> str:
    return server.command("admin", "key", "create", "--name", "tests")


@pytest.fixture
def http(server, key):
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=300) as client:
        yield client


@pytest.fixture(scope="session")
def tiny_library(tmp_path_factory) -> Path:
    """A library with one tiny model: its server is up in seconds, and all but its size is real."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "source").mkdir()
    make_tiny("llama", folder / "source")
    ModelLibrary(folder / "library").add(str(folder / "source"), "tiny", convert=convert)
    return folder / "library"


@pytest.fixture
def tiny_models(tiny_library, tmp_path) -> Path:
    """The same, for the test to change."""
    shutil.copytree(tiny_library, tmp_path / "library")
    return tmp_path / "library"


@pytest.fixture
def tiny_server(tmp_path, tiny_models):
    """Starts a server of the tiny model with settings of the test's own; anonymous callers are let in."""
    with ExitStack() as running:

        def start(**settings: str) -> Server:
            server = Server(tmp_path, tiny_models, allow_anonymous="true", **settings)
            running.callback(server.stop)
            server.start()
            return server

        yield start
