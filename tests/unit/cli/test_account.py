"""`transom login`, `logout` and `whoami`: what is sent, what is kept, and how each ends."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx2
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from transom.cli import account, output, session
from transom.client import Client
from transom.client.kept import KeptSessions

HERE = "http://127.0.0.1:8600"
SESSION = "ts_" + "0" * 22 + "_" + "1" * 49
ADA = {"id": "per_1", "email": "ada@example.org", "name": "", "created": "2026-01-31T00:00:00Z", "roles": []}
WELCOME = {"person": ADA, "expires": "2026-03-01T00:00:00Z", "token": SESSION, "next": None}
ASKED = {"request": "lnk", "expires": "2026-01-31T00:15:00Z"}
WRONG = {
    "error": {"message": "The link or code is wrong.", "type": "x", "param": None, "code": "invalid_link"}
}
ENDED = {
    "error": {"message": "The session has ended.", "type": "x", "param": None, "code": "invalid_session"}
}


class Server:
    """Answers `METHOD /path` with what was laid out for it, one after the other; the last one stays."""

    def __init__(self) -> None:
        self.replies: dict[str, list[httpx2.Response]] = {}
        self.requests: list[httpx2.Request] = []

    def lay(self, request: str, *replies: tuple[int, Any]) -> None:
        self.replies[request] = [httpx2.Response(status, json=body) for status, body in replies]

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        replies = self.replies[f"{request.method} {request.url.path}"]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(each.content) for each in self.requests if each.content]


@pytest.fixture
def server(monkeypatch, tmp_path) -> Server:
    standin = Server()
    standin.lay("POST /v1/auth/links", (202, ASKED))
    standin.lay("POST /v1/auth/links/redeem", (200, WELCOME))
    standin.lay("GET /v1/account", (200, ADA))
    standin.lay("POST /v1/auth/sign-out", (204, None))
    for module in (account, session):
        monkeypatch.setattr(module, "Client", partial(Client, transport=httpx2.MockTransport(standin)))
    monkeypatch.delenv("TRANSOM_SESSION", raising=False)
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRANSOM_SESSION_FILE", str(tmp_path / "sessions.json"))
    made = partial(Console, highlight=False, markup=False, soft_wrap=True, force_terminal=False)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))
    return standin


def run(*arguments: str, typed: str = ""):
    app = typer.Typer()
    account.register(app)
    return CliRunner().invoke(app, arguments, input=typed)


def kept() -> str | None:
    return KeptSessions().get(HERE)


class TestLogin:
    def test_by_a_code(self, server):
        result = run("login", "ada@example.org", typed="ABCD-EFGH\n")
        assert result.exit_code == 0, result.output
        assert server.bodies == [
            {"email": "ada@example.org", "session": "token"},
            {"request": "lnk", "code": "ABCD-EFGH", "session": "token"},
        ]
        assert kept() == SESSION
        assert SESSION not in result.output

    def test_a_wrong_code_may_be_typed_again(self, server):
        server.lay("POST /v1/auth/links/redeem", (401, WRONG), (200, WELCOME))
        result = run("login", "ada@example.org", typed="ABCD-EFGX\nABCD-EFGH\n")
        assert result.exit_code == 0, result.output
        assert "wrong" in result.stderr

    def test_but_not_for_ever(self, server):
        server.lay("POST /v1/auth/links/redeem", (401, WRONG))
        result = run("login", "ada@example.org", typed="ABCD-EFGX\n" * 9)
        assert result.exit_code == output.ExitCode.DENIED
        assert len(server.requests) == 4
        assert "TRANSOM_API_KEY" not in result.stderr
        assert kept() is None

    @pytest.mark.parametrize("spelled", ["tl_x", "https://transom.example.org/sign-in#tl_x"])
    @pytest.mark.parametrize("piped", [False, True])
    def test_by_the_token_of_a_link(self, server, spelled, piped):
        result = run("login", "--token", "-" if piped else spelled, typed=spelled + "\n")
        assert result.exit_code == 0, result.output
        assert server.bodies == [{"token": "tl_x", "session": "token"}]
        assert kept() == SESSION

    def test_by_a_session_which_is_tried_first(self, server):
        assert run("login", "--token", SESSION).exit_code == 0
        assert server.requests[0].headers["authorization"] == f"Bearer {SESSION}"
        assert kept() == SESSION

    def test_one_that_has_ended_is_not_kept(self, server):
        server.lay("GET /v1/account", (401, ENDED))
        result = run("login", "--token", SESSION)
        assert result.exit_code == output.ExitCode.DENIED
        assert kept() is None

    @pytest.mark.parametrize("arguments", [[], ["ada@example.org", "--token", "tl_x"]])
    def test_one_way_at_a_time(self, server, arguments):
        assert run("login", *arguments).exit_code == output.ExitCode.USAGE
        assert server.requests == []

    def test_no_key_is_sent_along(self, server, monkeypatch):
        monkeypatch.setenv("TRANSOM_API_KEY", "tr_secret")
        run("login", "--token", "tl_x")
        assert "authorization" not in server.requests[0].headers


class TestWhoami:
    def test_says_who(self, server):
        KeptSessions().keep(HERE, SESSION)
        result = run("whoami")
        assert result.stdout == "ada@example.org\n"
        assert server.requests[0].headers["authorization"] == f"Bearer {SESSION}"
        assert json.loads(run("whoami", "--json").stdout) == ADA

    def test_nobody(self, server):
        result = run("whoami")
        assert result.exit_code == output.ExitCode.DENIED
        assert "transom login EMAIL" in result.stderr
        assert server.requests == []

    def test_another_server_gets_no_session_of_this_one(self, server):
        KeptSessions().keep(HERE, SESSION)
        assert run("whoami", "--base-url", "https://evil.example.org").exit_code == output.ExitCode.DENIED
        assert server.requests == []


class TestLogout:
    def test_ends_it_on_both_sides(self, server):
        KeptSessions().keep(HERE, SESSION)
        assert run("logout").exit_code == 0
        assert server.requests[0].url.path == "/v1/auth/sign-out"
        assert kept() is None

    def test_one_that_has_ended_is_forgotten(self, server):
        server.lay("POST /v1/auth/sign-out", (401, ENDED))
        KeptSessions().keep(HERE, SESSION)
        assert run("logout").exit_code == 0
        assert kept() is None

    def test_a_server_that_cannot_be_reached_leaves_it(self, server):
        server.lay(
            "POST /v1/auth/sign-out", (503, {"error": {"message": "Ending.", "code": "engine_unavailable"}})
        )
        KeptSessions().keep(HERE, SESSION)
        assert run("logout").exit_code != 0
        assert kept() == SESSION

    def test_nobody(self, server):
        assert run("logout").exit_code == 0
        assert server.requests == []
