"""Killed at any moment, the server loses no answer that a client has received."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server import Server, is_alive
from transom.records.audit import find_gaps, find_misplaced
from transom.storage.database import Database
from transom.tlog.files import LogFiles
from transom.tlog.keys import open_key
from transom.tlog.publishing import find_departures

pytestmark = pytest.mark.e2e

KILLS = 20 if os.environ.get("TRANSOM_TEST_LONG") else 8
CLIENTS = 16


@pytest.fixture
def mortal(tmp_path, tiny_models, home):
    """A server to kill. With TRANSOM_TEST_KILL_REAL set, it serves the real model."""
    folder = tmp_path / "home"
    folder.mkdir()
    real = os.environ.get("TRANSOM_TEST_KILL_REAL")
    server = Server(folder, home / "models" if real else tiny_models)
    yield server
    server.stop()


class Crowd:
    """Clients that ask until the server dies, and note each record whose reply they received in full."""

    def __init__(self, server: Server, key: str, model: str):
        self._server, self._key, self._model = server, key, model
        self._lock = threading.Lock()
        self.received: list[str] = []

    def ask_until_it_dies(self, number: int) -> None:
        chance = random.Random(number)
        headers = {"authorization": f"Bearer {self._key}"}
        with httpx2.Client(base_url=self._server.url, headers=headers, timeout=120) as http:
            while True:
                try:
                    record = self._ask(http, chance)
                except httpx2.TransportError:
                    return
                with self._lock:
                    self.received.append(record)

    def _ask(self, http: httpx2.Client, chance: random.Random) -> str:
        body = {
            "model": self._model,
            "prompt": [chance.randrange(300) for _ in range(8)],
            "max_tokens": chance.randint(1, 24),
            "ignore_eos": True,
        }
        if chance.random() < 0.5:
            response = http.post("/v1/completions", json=body)
            assert response.status_code == 200
            return response.json()["transom"]["record"]
        with http.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
            lines = [line for line in response.iter_lines() if line]
        if lines[-1:] != ["data: [DONE]"]:
            raise httpx2.ReadError("the stream broke off")
        return response.headers["x-transom-record"]


@pytest.mark.timeout(1800)
def test_no_acknowledged_record_is_lost_when_the_server_is_killed(mortal):
    chance = random.Random(0)
    mortal.start()
    key = mortal.command("admin", "key", "create")
    model = next(iter((mortal.home / "models").iterdir())).name
    crowd = Crowd(mortal, key, model)
    for _ in range(KILLS):
        with ThreadPoolExecutor(CLIENTS) as pool:
            for _ in range(CLIENTS):
                pool.submit(crowd.ask_until_it_dies, chance.randrange(2**32))
            time.sleep(chance.uniform(0.3, 2.0))
            mortal.kill()
        assert damage_of(mortal.home) == []
        mortal.start()
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=mortal.url, headers=headers, timeout=60) as http:
        for record in crowd.received:
            kept = http.get(f"/v1/records/{record}")
            assert kept.status_code == 200
            assert kept.json()["status"] == "complete"
    assert len(crowd.received) > KILLS
    print(f"{KILLS} kills, {len(crowd.received)} replies received in full, every one on record")


def damage_of(home: Path) -> list[str]:
    """Everything that is wrong with records, their places in the log, and the log's files."""
    database = Database(f"sqlite:///{home / 'transom.db'}")
    log = LogFiles(home / "log", open_key(home / "log.key", None).verifier)
    try:
        found = [*database.check(), *database.read_sync(find_gaps), *find_departures(database, log)]
        return found + database.read_sync(lambda connection: list(find_misplaced(connection)))
    finally:
        database.close()


def test_a_stream_survives_the_death_of_the_engine(server, http):
    body = {
        "model": "smollm2-135m-instruct",
        "prompt": "The history of science begins",
        "max_tokens": 40,
        "seed": 3,
        "logprobs": 1,
        "ignore_eos": True,
    }
    whole = http.post("/v1/completions", json=body).json()["choices"][0]
    tokens, logprobs = [], []
    with http.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
        for line in response.iter_lines():
            if not line or line == "data: [DONE]":
                continue
            part = httpx2.Response(200, content=line.removeprefix("data: ")).json()["choices"][0]
            if part["logprobs"]:
                tokens += part["logprobs"]["tokens"]
                logprobs += part["logprobs"]["token_logprobs"]
            if len(tokens) == 12:
                os.kill(server.engine, signal.SIGKILL)
    assert tokens == whole["logprobs"]["tokens"]
    assert logprobs == whole["logprobs"]["token_logprobs"]
    report = http.post(f"/v1/records/{response.headers['x-transom-record']}/replay").json()
    assert report["level"] == "EXACT"


def test_the_engine_ends_when_its_server_is_killed(mortal):
    mortal.start()
    engine = mortal.engine
    mortal.kill()
    deadline = time.monotonic() + 10
    while is_alive(engine) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(engine)


def test_a_changed_model_root_is_refused(mortal, tmp_path):
    weights = next((tmp_path / "library").glob("tiny/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(AssertionError, match=r"model\.safetensors"):
        mortal.start()
    assert mortal.process is not None
    assert mortal.process.returncode == 1
