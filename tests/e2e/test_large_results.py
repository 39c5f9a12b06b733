"""Captures of hundreds of megabytes over the real server: bounded memory, the same bits, whatever breaks."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.e2e.server import TRANSOM, Server
from transom import Client
from transom.services.planning.sizes import SPILLS_ABOVE

pytestmark = pytest.mark.e2e

TOKENS = 256
READS = 60
RUNS = ("a", "b", "c")
BYTES = len(RUNS) * READS * 3 * 4 * TOKENS**2 * 4
"""Of attention patterns: 3 layers of 4 heads."""
MOST_GROWN = 96 << 20
"""Memory of its own that an engine may take while it handles them."""
MOST_OF_A_COMMAND = 160 << 20
"""The same of a command, its libraries included."""


def plan(reads=range(READS)):
    read = {f"r{index}": {"at": "attn_probs.*"} for index in reads}
    runs = {
        run: {"input": {"token_ids": [5 + index] * TOKENS}, "read": read} for index, run in enumerate(RUNS)
    }
    return {"model": "tiny", "runs": runs, "return": [f"{run}.r{index}" for run in RUNS for index in reads]}


@pytest.fixture
def server(tiny_server) -> Server:
    return tiny_server()


@pytest.fixture
def client(server):
    with Client(server.url, server.command("admin", "key", "create", "--name", "tests")) as client:
        yield client


def memory(pid: int) -> int:
    """Bytes of a process that belong to no file; of one that has ended, none."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * sum(
        int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))
    )


@contextmanager
def watched(pid: int):
    """A list of one: the most memory that a process had."""
    most, over = [memory(pid)], threading.Event()

    def watch():
        while not over.wait(0.01):
            most[0] = max(most[0], memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def spooled(server) -> list[str]:
    return [path.name for path in (server.home / "spool").iterdir()]


def test_the_engine_and_the_command_take_little_memory_and_give_the_bits_that_memory_gives(
    server, client, tmp_path
):
    few = client.trace(plan(range(2)))
    before = memory(server.engine)
    (tmp_path / "plan.json").write_text(json.dumps(plan()))
    out = tmp_path / "out.safetensors"
    environment = server.environment | {"TRANSOM_BASE_URL": server.url}
    environment["TRANSOM_API_KEY"] = client._http.headers["authorization"].removeprefix("Bearer ")
    arguments = [TRANSOM, "trace", str(tmp_path / "plan.json"), "--out", str(out)]
    with (
        watched(server.engine) as most,
        subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as command,
        # Until it is waited for, there is an entry of it.
        watched(command.pid) as commands,
    ):
        told = command.stdout.read()
    assert command.returncode == 0
    assert out.stat().st_size > BYTES > SPILLS_ABOVE
    assert most[0] - before < MOST_GROWN
    assert 0 < commands[0] < MOST_OF_A_COMMAND
    digests = {line.split("\t")[0]: line.split("\t")[-1] for line in told.splitlines()}
    with safe_open(out, "numpy") as opened:
        for name in opened.keys():  # noqa: SIM118  # it is no mapping
            array = opened.get_tensor(name)
            assert hashlib.sha256(array.tobytes()).hexdigest() == digests[name]
            np.testing.assert_array_equal(array.view(np.uint32), few[f"{name[0]}.r0"].data.view(np.uint32))
    # The command has given it back.
    assert spooled(server) == []


def test_an_engine_that_is_killed_while_it_spills_leaves_nothing_and_the_next_gives_the_same_bits(
    server, client, tmp_path
):
    expected = {run: client.trace(plan(range(1)))[f"{run}.r0"].data for run in RUNS}
    engine = server.engine
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.manifest, plan())
        until(lambda: maps(engine, server.home / "spool"))
        os.kill(engine, signal.SIGKILL)
        manifest = asked.result()
    assert server.engine != engine
    assert spooled(server) == [f"{manifest.id}.safetensors"]
    for run, array in expected.items():
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        assert {manifest.tensors[f"{run}.r{index}"].sha256 for index in range(READS)} == {digest}
    assert not maps(server.engine, server.home / "spool")
    client.discard(manifest)
    assert spooled(server) == []


def maps(pid: int, folder: Path) -> bool:
    """Whether a process has a file of a folder mapped."""
    try:
        return str(folder) in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_who_leaves_in_the_middle_of_a_download_may_come_back_for_the_rest(server, client):
    manifest = client.manifest(plan())
    path = f"/v1/traces/{manifest.id}/file"
    with client._http.stream("GET", path) as response:
        assert response.headers["content-length"] == str(manifest.file.bytes)
        first = next(response.iter_bytes(1 << 20))
    assert spooled(server) == [f"{manifest.id}.safetensors"]
    rest = client._http.get(path, headers={"range": f"bytes={len(first)}-{manifest.parts[0].bytes - 1}"})
    assert rest.status_code == 206
    assert hashlib.sha256(first + rest.content).hexdigest() == manifest.parts[0].sha256


def test_who_leaves_while_it_spills_leaves_nothing(server, client):
    content = json.dumps(plan() | {"format": "parts"}).encode()
    head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += (
        f"authorization: {client._http.headers['authorization']}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content)
        until(lambda: maps(server.engine, server.home / "spool"))
    until(lambda: not maps(server.engine, server.home / "spool") and spooled(server) == [])
    assert client.trace(plan(range(1))).names


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
