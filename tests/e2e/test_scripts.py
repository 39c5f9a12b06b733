"""`scripts/serve`, as a stranger runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import httpx2
import openai
import pytest

from tests.conftest import ROOT
from tests.e2e.server import free_port

pytestmark = pytest.mark.e2e


def test_serve_answers_replays_and_hands_out_a_working_key(home, tmp_path):
    own = tmp_path / "home"
    own.mkdir()
    (own / "models").symlink_to(home / "models")
    env_file, log = tmp_path / "env", tmp_path / "log"
    port = free_port()
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [ROOT / "scripts" / "serve", "--port", str(port), "--env-file", env_file],
            env=os.environ | {"TRANSOM_HOME": str(own)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 240
        while not env_file.exists():
            assert serving.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        assert env_file.stat().st_mode & 0o777 == 0o600
        variables = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        assert variables["OPENAI_BASE_URL"] == f"http://127.0.0.1:{port}/v1"
        assert httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        with openai.OpenAI(
            base_url=variables["OPENAI_BASE_URL"], api_key=variables["OPENAI_API_KEY"]
        ) as client:
            assert client.models.list().data[0].id == "smollm2-135m-instruct"
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(timeout=60)
    printed = log.read_text()
    assert re.search(r"^replayed: EXACT$", printed, re.MULTILINE)
    assert f'base_url="http://127.0.0.1:{port}/v1", api_key="{variables["OPENAI_API_KEY"]}"' in printed
    assert "Traceback" not in printed
