"""One real server for the whole of this folder, and a key to it."""

from __future__ import annotations

import httpx2
import pytest

from tests.e2e.server import Server


@pytest.fixture(scope="session")
def server(home, tmp_path_factory):
    """A running server with SmolLM2; anonymous callers are let in too."""
    running = Server(tmp_path_factory.mktemp("home"), home / "models", allow_anonymous="true")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def key(server) -> str:
    return server.command("key", "create", "--name", "tests")


@pytest.fixture
def http(server, key):
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=300) as client:
        yield client
