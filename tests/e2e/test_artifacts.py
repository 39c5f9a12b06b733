"""Artifacts on a real server with a tiny model: uploaded, taken by plans, replayed, deleted, and cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.e2e.server import Server
from tests.internals.valid_plans import CLEAN, plan, write
from transom import Client
from transom.app import key_store, open_database
from transom.config import Settings
from transom.errors import InvalidRequest, NotFound

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WIDTH = 64
KIND = {"content-type": "application/vnd.safetensors"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_library):
    running = Server(tmp_path_factory.mktemp("artifacts"), tiny_library)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url, server.command("admin", "key", "create", "--name", "tests")) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(server):
    """Somebody with a key of another project."""
    settings = Settings(home=server.home)
    database = open_database(settings)
    key = asyncio.run(key_store(settings, database).create("prj_other")).text
    database.close()
    with Client(server.url, key) as client:
        yield client


def draw(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def read(ref, **more):
    run = {"input": CLEAN, "read": {"x": {"at": "resid_post.1", "reduce": {"project": ref, **more}}}}
    return plan({"a": run}, "a.x")


def is_swept(server):
    """Whether the spool is empty, at the latest a moment after the last answer."""
    for _ in range(100):
        if not list((server.home / "spool").iterdir()):
            return True
        time.sleep(0.1)
    return False


def test_a_plan_takes_it_is_replayed_and_cannot_be_once_it_is_deleted(server, client):
    kept = client.upload_artifact({"encoder": draw(300, WIDTH), "bias": draw(300)})
    content = read(f"{kept.id}#encoder", matrix=True)
    content["derive"] = {"best": {"topk": "derive.pre", "k": 5}, "pre": {"add": ["a.x", f"{kept.id}#bias"]}}
    content["return"] = ["a.x", "derive.best"]
    told = {value.name: (value.axes, value.shape) for value in client.explain(content).values}
    assert told["a.x"] == (("pos", "direction"), (14, 300))
    traced = client.trace(content)
    assert traced["a.x"].axes == ("pos", "direction")
    assert traced["a.x"].data.shape == (14, 300)
    whole = client.trace(plan({"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.1"}}}}, "a.x"))[
        "a.x"
    ].data
    assert np.abs(traced["a.x"].data - whole @ draw(300, WIDTH).T).max() < 1e-4
    report = client.replay(traced.record)
    assert (report.level, report.reason) == ("EXACT", None)
    assert kept.id in str(client.record(traced.record).openings)
    assert "inline" not in str(client.record(traced.record).openings)

    client.delete_artifact(kept.id)
    report = client.replay(traced.record)
    assert (report.level, report.reason) == ("UNREPLAYABLE", "ARTIFACT")
    with pytest.raises(InvalidRequest) as refused:
        client.trace(content)
    assert (refused.value.reason, refused.value.param) == (
        "unknown_artifact",
        "runs.a.read.x.reduce.project",
    )
    client.upload_artifact({"encoder": draw(300, WIDTH), "bias": draw(300)})
    assert client.replay(traced.record).level == "EXACT"
    assert is_swept(server)


def test_another_projects_artifact_is_in_a_plan_as_one_that_there_is_not(client, stranger):
    kept = client.upload_artifact({"v": draw(WIDTH)})
    said = []
    for ref in (kept.id, "artifact:" + "0" * 64):
        with pytest.raises(InvalidRequest) as refused:
            stranger.trace(read(ref))
        error = refused.value
        said.append((error.reason, error.param, error.message.replace(ref.partition(":")[2], "…")))
    assert said[0] == said[1]
    assert said[0][:2] == ("unknown_artifact", "runs.a.read.x.reduce.project")
    with pytest.raises(NotFound):
        stranger.download_artifact(kept.id)
    assert stranger.artifacts().data == ()


def test_weights_of_64_mib_pass_and_tokens_go_on_meanwhile(server, client):
    matrix = draw(1 << 18, WIDTH)
    kept = client.upload_artifact({"encoder": matrix})
    assert kept.bytes > 64 << 20
    content = read(kept.id, matrix=True)
    content["runs"]["a"]["read"]["x"]["pos"] = [0, 13]
    content["derive"], content["return"] = {"best": {"topk": "a.x", "k": 3}}, ["derive.best"]
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(client.trace, content)
        while not traced.done():
            client_of_tokens = {"model": "tiny", "prompt": "The light", "max_tokens": 4}
            httpx2.post(
                f"{server.url}/v1/completions", json=client_of_tokens, headers=dict(client._http.headers)
            ).raise_for_status()
        found = traced.result()
    whole = client.trace(plan({"a": {"input": CLEAN, "read": {"x": {"at": "resid_post.1"}}}}, "a.x"))[
        "a.x"
    ].data
    expected = np.argsort(-(whole[[0, 13]].astype(np.float64) @ matrix.T.astype(np.float64)), axis=-1)[:, :3]
    assert (found["derive.best.ids"].data == expected).all()
    assert client.download_artifact(kept.id) == save({"encoder": matrix})
    assert is_swept(server)


def test_a_plan_goes_on_with_its_artifacts_when_the_engine_dies(server, client):
    kept = client.upload_artifact({"encoder": draw(1 << 16, WIDTH)})
    content = read(kept.id, matrix=True)
    content["derive"], content["return"] = {"best": {"topk": "a.x", "k": 3}}, ["derive.best"]
    before = client.trace(content)["derive.best.values"].data
    engine = server.engine
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(client.trace, content)
        while not any(path.suffix == ".tensors" for path in (server.home / "spool").iterdir()):
            assert not again.done()
        os.kill(engine, signal.SIGKILL)
        assert (again.result()["derive.best.values"].data == before).all()
    assert is_swept(server)


def test_a_plan_whose_sender_leaves_leaves_no_file(server, client):
    kept = client.upload_artifact({"encoder": draw(1 << 16, WIDTH)})
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{server.url}/v1/traces",
            json=read(kept.id, matrix=True) | {"model": "tiny"},
            headers=dict(client._http.headers),
            timeout=httpx2.Timeout(60, read=0.02),
        )
    assert is_swept(server)
    assert client.trace(read(client.upload_artifact({"v": draw(WIDTH)}).id))["a.x"].data.shape == (14,)


def test_a_killed_server_keeps_what_was_acknowledged_and_nothing_of_what_was_not(server, client):
    kept = client.upload_artifact({"v": draw(3, WIDTH)})
    blobs = sorted((server.home / "artifacts").iterdir())
    arrived = threading.Event()

    def half():
        yield save({"v": draw(1 << 18, WIDTH)})[: 8 << 20]
        arrived.set()
        time.sleep(60)
        yield b""

    def upload():
        headers = dict(client._http.headers) | KIND
        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{server.url}/v1/artifacts", content=half(), headers=headers, timeout=60)

    sender = threading.Thread(target=upload, daemon=True)
    sender.start()
    assert arrived.wait(60)
    while not list((server.home / "spool").iterdir()):
        time.sleep(0.01)
    server.kill()
    assert list((server.home / "spool").iterdir())
    server.start()
    assert is_swept(server)
    assert sorted((server.home / "artifacts").iterdir()) == blobs
    assert (load(client.download_artifact(kept.id))["v"] == draw(3, WIDTH)).all()
    assert client.trace(read(f"{kept.id}#v", matrix=True))["a.x"].data.shape == (14, 3)


def test_a_write_takes_one_too(client):
    kept = client.upload_artifact({"v": draw(WIDTH)})
    run = {
        "input": CLEAN,
        "write": [write("resid_post.0", "project_out", value=kept.id)],
        "read": {"x": {"at": "resid_post.0", "reduce": {"project": kept.id}}},
    }
    assert np.abs(client.trace(plan({"a": run}, "a.x"))["a.x"].data).max() < 1e-4
