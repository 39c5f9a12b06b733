"""The process of a server: once its models are up, the collector leaves what is there to itself."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from transom.cli.server import Server, settle_memory
from transom.config import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def collector():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def make(tmp_path, *ready):
    backends = {str(index): SimpleNamespace(ready=each) for index, each in enumerate(ready)}
    app = SimpleNamespace(state=SimpleNamespace(house=SimpleNamespace(backends=backends)))
    return Server(Settings(home=tmp_path), app), backends


async def test_nothing_is_settled_while_a_model_loads(tmp_path, monkeypatch):
    settled = []
    monkeypatch.setattr("transom.cli.server.settle_memory", lambda: settled.append(True))
    server, backends = make(tmp_path, True, False)
    assert not await server.on_tick(1)
    assert settled == []
    backends["1"].ready = True
    for tick in range(2, 5):
        assert not await server.on_tick(tick)
    assert settled == [True]


async def test_a_server_that_shall_end_does_so_whatever_loads(tmp_path):
    server, _ = make(tmp_path, False)
    server.should_exit = True
    assert await server.on_tick(1)


def test_what_lives_is_frozen_and_what_comes_is_collected(collector):
    settle_memory()
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    ring: list[object] = []
    ring.append(ring)
    del ring
    assert gc.collect() > 0
