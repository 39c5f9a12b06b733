"""From a stranger's question to a metered answer: every step as a person takes it, from an empty database."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

from tests.e2e.server import TRANSOM, Server

pytestmark = pytest.mark.e2e

PROGRAMME = """
name = "The tiny programme"
contact = "operator@example.org"
terms = "Be kind."

[tiers.research]
title = "Research"
review = true
asks = ["purpose"]
scopes = ["model:sample", "model:logprobs", "records:read", "records:replay"]
duration_days = 30
decision_days = 7
blind = true
criteria = ["The question is clear."]

[tiers.research.quotas]
requests_per_minute = 3
tokens_total = 1000
"""
PURPOSE = "How does a model of sixteen dimensions see the light?"


@dataclass
class Person:
    """Somebody at a terminal of their own."""

    email: str
    server: Server
    home: Path

    def run(self, *arguments: str, key: str | None = None) -> str:
        """Run `transom …`; what it printed."""
        done = self._run(arguments, key)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def fails(self, *arguments: str) -> str:
        """Run `transom …`, which is expected to refuse; what it says."""
        done = self._run(arguments, None)
        assert done.returncode != 0, (arguments, done.stdout)
        return done.stderr

    def _run(self, arguments: Sequence[str], key: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TRANSOM, *arguments],
            env=self._environment(key),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sign_in(self) -> None:
        """`transom login`, and typing the code that came by mail."""
        before = set(self._mails())
        command = subprocess.Popen(
            [TRANSOM, "login", self.email],
            env=self._environment(None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not (new := set(self._mails()) - before):
            assert time.monotonic() < deadline, "no mail came"
            time.sleep(0.2)
        letter = self.server.command("mail", new.pop())
        code = re.search(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b", letter)
        assert code, letter
        said, _ = command.communicate(f"{code[0]}\n", timeout=60)
        assert command.returncode == 0, said

    def _mails(self) -> list[str]:
        lines = self.server.command("mail").splitlines()
        return [line.split("\t")[0] for line in lines if self.email in line]

    def _environment(self, key: str | None) -> dict[str, str]:
        own = {
            "PATH": self.server.environment["PATH"],
            "HOME": str(self.home),
            "TRANSOM_BASE_URL": self.server.url,
            "TRANSOM_SESSION_FILE": str(self.home / f"{self.email}.json"),
        }
        return own if key is None else own | {"TRANSOM_API_KEY": key}

    def session(self) -> str:
        """The session that `transom login` keeps."""
        kept = (self.home / f"{self.email}.json").read_text()
        found = re.search(r"ts_[0-9A-Za-z_]+", kept)
        assert found
        return found[0]


def test_from_a_question_to_a_metered_answer(tiny_models, tmp_path):
    home = tmp_path / "server"
    home.mkdir()
    (home / "programme.toml").write_text(PROGRAMME)
    server = Server(home, tiny_models)
    server.start()
    try:
        ada, rita = (Person(f"{name}@example.org", server, tmp_path) for name in ("ada", "rita"))
        ada.sign_in()
        project = re.search(r"prj_\w+", ada.run("project", "create", "Light in small models"))[0]
        application = ada.run("apply", "--project", project, "--tier", "research", "--purpose", PURPOSE)
        application_id, state = application.split("\t")[:2]
        assert state == "submitted"
        assert "apply for one first" in ada.fails("key", "create", project)
        approve(server, rita, application_id)
        assert "in_force" in ada.run("grant", "list")
        key = ada.run("key", "create", project).splitlines()[-1]
        ask_until_refused_and_wait(server, ada, key)
    finally:
        server.stop()
    assert "Every counter agrees" in server.command("admin", "reconcile")
    assert "holds" in server.command("admin", "trail", "--check")


def approve(server: Server, rita: Person, application_id: str) -> None:
    """A second person signs in, is made a reviewer, and decides without knowing who asks."""
    rita.sign_in()
    server.command("admin", "role", "give", rita.email, "reviewer")
    headers = {"authorization": f"Bearer {rita.session()}"}
    with httpx2.Client(base_url=f"{server.url}/v1", headers=headers, timeout=30) as desk:
        waiting = desk.get("/reviews")
        assert [each["id"] for each in waiting.json()["data"]] == [application_id]
        assert "ada@example.org" not in waiting.text
        path = f"/applications/{application_id}"
        version = desk.get(path).json()["version"]
        taken = desk.post(f"{path}/start-review", json={"version": version})
        assert taken.status_code == 200, taken.text
        verdict = {"version": taken.json()["version"], "met": ["The question is clear."]}
        decided = desk.post(f"{path}/approve", json=verdict)
        assert decided.json()["state"] == "approved", decided.text


def client(server: Server, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def ask_until_refused_and_wait(server: Server, ada: Person, key: str) -> None:
    """Ask, see the usage, hit the limit, wait as told, and go on."""
    asking = client(server, key)
    into_a_fresh_minute()
    for left in (2, 1, 0):
        reply = asking.completions.with_raw_response.create(model="tiny", prompt="The light", max_tokens=2)
        assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
    told = ada.run("usage", key=key)
    assert "requests_per_minute\t3\t3" in told
    with pytest.raises(openai.RateLimitError) as limited:
        asking.completions.create(model="tiny", prompt="The light", max_tokens=2)
    assert limited.value.code == "rate_limit_exceeded"
    wait = int(limited.value.response.headers["retry-after"])
    assert 0 < wait <= 60
    time.sleep(wait)
    answer = asking.completions.create(model="tiny", prompt="The light", max_tokens=2)
    assert answer.usage.completion_tokens <= 2
    with pytest.raises(openai.RateLimitError) as spent:
        asking.completions.create(model="tiny", prompt="The light", max_tokens=200, n=5)
    assert spent.value.code == "insufficient_quota"
    assert ada.run("record", "list", key=key).count("complete") == 4


def into_a_fresh_minute() -> None:
    """Limits of a minute are those of a clock's minute; three quick requests should be in one."""
    left = 60 - time.time() % 60
    if left < 15:
        time.sleep(left + 0.1)
