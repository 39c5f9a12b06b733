"""The researcher's commands about projects, keys and rights: what is sent, what is printed, and as whom."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from transom.cli import rights, session
from transom.cli.main import app
from transom.client import Client
from transom.client.kept import KeptSessions
from transom.errors import AccessDenied

PROJECT = {
    "id": "prj_1",
    "name": "Lenses",
    "description": "",
    "institution": "",
    "created": "2026-01-31T12:00:00.000000Z",
    "archived": None,
    "embargo_months": 3,
    "role": "owner",
    "suspensions": [],
}
KEY = {
    "id": "k1",
    "project_id": "prj_1",
    "person_id": "per_1",
    "name": "notebook",
    "created": "2026-01-31T12:00:00.000000Z",
    "expires": None,
    "revoked": None,
    "last_used": None,
    "scopes": None,
    "quotas": {},
    "successor": None,
    "retires": None,
}
MEMBERS = {"data": [{"person_id": "per_1", "role": "owner", "joined": "2026-01-31T12:00:00.000000Z"}]}
INVITATION = {
    "id": "i1",
    "project_id": "prj_1",
    "email": "bob@example.org",
    "role": "member",
    "created": "2026-01-31T12:00:00.000000Z",
    "expires": "2026-02-14T12:00:00.000000Z",
}


@dataclass
class Server:
    replies: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status, body = self.replies[f"{request.method} {request.url.path}"]
        return httpx2.Response(status, **({"text": body} if isinstance(body, str) else {"json": body}))

    def lay(self, request: str, body: Any, status: int = 200) -> None:
        self.replies[request] = (status, body)

    @property
    def sent(self) -> Any:
        return json.loads(self.requests[-1].content)


@pytest.fixture
def server(monkeypatch):
    standin = Server()
    for module in (session, rights):
        client = partial(Client, transport=httpx2.MockTransport(standin))
        monkeypatch.setattr(module, "Client", client)
    monkeypatch.setenv("TRANSOM_SESSION", "ts_mine")
    monkeypatch.setenv("TRANSOM_API_KEY", "tr_not_this_one")
    monkeypatch.delenv("TRANSOM_BASE_URL", raising=False)
    return standin


def transom(*arguments: str):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


class TestSession:
    def test_the_environment_comes_before_what_login_keeps(self, tmp_path):
        kept = KeptSessions(tmp_path / "sessions.json")
        kept.keep("http://here", "ts_kept")
        environ = {"TRANSOM_SESSION": "ts_environment"}
        assert session.session_token("http://here", environ, kept) == "ts_environment"
        assert session.session_token("http://here", {"TRANSOM_SESSION": " "}, kept) == "ts_kept"

    def test_without_either_one_is_told_to_sign_in(self, tmp_path):
        with pytest.raises(AccessDenied, match="transom login"):
            session.session_token("http://here", {}, KeptSessions(tmp_path / "absent"))

    def test_what_one_server_gave_is_not_shown_to_another(self, tmp_path):
        kept = KeptSessions(tmp_path / "sessions.json")
        kept.keep("http://here", "ts_kept")
        with pytest.raises(AccessDenied):
            session.session_token("http://there", {}, kept)

    def test_what_is_asked_is_asked_as_the_person_and_never_with_the_key(self, server):
        server.lay("GET /v1/projects", {"data": []})
        assert transom("project", "list").exit_code == 0
        assert server.requests[-1].headers["authorization"] == "Bearer ts_mine"


def refusal(code: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": "No.", "type": kind, "param": None, "code": code, "layer": "access"}}


@pytest.mark.parametrize(
    ("status", "body", "ends"),
    [
        (401, refusal("invalid_api_key", "authentication_error"), 4),
        (403, refusal("permission_denied", "permission_error"), 4),
        (404, refusal("not_found", "not_found_error"), 1),
        (409, refusal("conflict", "conflict_error"), 1),
        (400, refusal("invalid_value", "invalid_request_error"), 2),
    ],
)
def test_a_refusal_ends_with_its_status(server, status, body, ends):
    server.lay("GET /v1/projects/prj_1", body, status)
    done = transom("project", "show", "prj_1")
    assert (done.exit_code, "No." in done.stderr) == (ends, True)


def test_a_key_is_printed_alone(server):
    server.lay("POST /v1/keys", KEY | {"key": "tr_k1_secret"}, 201)
    done = transom(
        "key", "create", "prj_1", "--name", "notebook", "--days", "9", "--scope", "model:sample",
        "--scope", "records:read", "--quota", "tokens_per_day=10",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, "tr_k1_secret\n")
    assert server.sent == {
        "project": "prj_1",
        "name": "notebook",
        "scopes": ["model:sample", "records:read"],
        "quotas": {"tokens_per_day": 10},
        "days": 9,
    }


@pytest.mark.parametrize("quota", ["tokens_per_day", "tokens_per_day=", "tokens_per_day=x", "=", "a=-1"])
def test_a_quota_that_is_none_is_refused_before_anything_is_sent(server, quota):
    done = transom("key", "create", "prj_1", "--quota", quota)
    assert done.exit_code == 2
    assert server.requests == []


def test_keys_are_listed_with_how_they_ended(server):
    rotated = KEY | {"id": "k2", "successor": "k3", "retires": "soon", "scopes": ["b", "a"]}
    server.lay("GET /v1/keys", {"data": [KEY, rotated, KEY | {"revoked": "then"}]})
    rows = [line.split("\t") for line in transom("key", "list", "--project", "prj_1").stdout.splitlines()]
    assert [(row[0], row[3], row[5]) for row in rows] == [
        ("k1", "all", "-"),
        ("k2", "a b", "replaced, until soon"),
        ("k1", "all", "then"),
    ]
    assert server.requests[-1].url.params["project"] == "prj_1"


def test_a_key_is_rotated_and_revoked(server):
    server.lay("POST /v1/keys/k1/rotate", KEY | {"key": "tr_k3_secret"}, 201)
    server.lay("DELETE /v1/keys/k1", KEY | {"revoked": "now"})
    assert transom("key", "rotate", "k1", "--grace-hours", "2").stdout == "tr_k3_secret\n"
    assert server.sent == {"grace_seconds": 7200}
    assert transom("key", "revoke", "k1").stdout == "Key k1 was revoked at now.\n"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?b", "a#b"])
def test_an_id_stays_one_part_of_the_path(server, name):
    server.replies.clear()
    seen = []

    def answer(request):
        seen.append(request.url.raw_path)
        return httpx2.Response(404, json=refusal("not_found", "not_found_error"))

    server.__class__ = type("Watching", (Server,), {"__call__": lambda _, request: answer(request)})
    assert transom("key", "revoke", name).exit_code == 1
    assert seen[0].startswith(b"/v1/keys/")
    assert seen[0].count(b"/") == 3
    assert b"?" not in seen[0]


PROJECT_COMMANDS = [
    (("create", "Lenses", "--embargo-months", "3"), "POST /v1/projects", PROJECT, 201),
    (("show", "prj_1"), "GET /v1/projects/prj_1", PROJECT, 200),
    (("edit", "prj_1", "--reopen"), "PATCH /v1/projects/prj_1", PROJECT, 200),
    (
        ("delete", "prj_1", "--confirm", "Lenses"),
        "DELETE /v1/projects/prj_1",
        {"id": "prj_1", "openings": 2},
        200,
    ),
    (("invite", "prj_1", "bob@example.org"), "POST /v1/projects/prj_1/invitations", INVITATION, 201),
    (("invitations", "prj_1"), "GET /v1/projects/prj_1/invitations", {"data": [INVITATION]}, 200),
    (("accept", "ti_x"), "POST /v1/invitations/accept", PROJECT, 200),
    (("decline", "ti_x"), "POST /v1/invitations/decline", "", 204),
    (("members", "list", "prj_1"), "GET /v1/projects/prj_1/members", MEMBERS, 200),
    (("members", "role", "prj_1", "per_2", "admin"), "PUT /v1/projects/prj_1/members/per_2", MEMBERS, 200),
    (("members", "remove", "prj_1", "per_2"), "DELETE /v1/projects/prj_1/members/per_2", "", 204),
    (("members", "transfer", "prj_1", "per_2"), "POST /v1/projects/prj_1/transfer", PROJECT, 200),
]


@pytest.mark.parametrize(
    ("words", "request_", "body", "status"), PROJECT_COMMANDS, ids=lambda part: str(part)[:40]
)
def test_a_command_sends_its_request_and_shows_the_reply(server, words, request_, body, status):
    server.lay(request_, body, status)
    done = transom("project", *words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


def test_what_is_not_given_is_not_sent(server):
    server.lay("PATCH /v1/projects/prj_1", PROJECT)
    transom("project", "edit", "prj_1", "--embargo-months", "0")
    assert server.sent == {"embargo_months": 0}


def test_a_suspension_is_shown_with_its_reason(server):
    suspension = {"subject": "project:prj_1", "reason": "It was misused.", "since": "then"}
    server.lay("GET /v1/projects/prj_1", PROJECT | {"suspensions": [suspension]})
    assert "It was misused." in transom("project", "show", "prj_1").stdout


def test_an_export_is_written_for_its_owner_alone_and_over_nothing(server, tmp_path):
    server.lay("GET /v1/projects/prj_1/export", '{"kind": "project"}\n')
    file = tmp_path / "export.jsonl"
    assert transom("project", "export", "prj_1", str(file)).exit_code == 0
    assert (file.read_text(), file.stat().st_mode & 0o777) == ('{"kind": "project"}\n', 0o600)
    file.write_text("mine")
    done = transom("project", "export", "prj_1", str(file))
    assert (done.exit_code, file.read_text()) == (2, "mine")


def test_terms_are_listed_shown_and_accepted(server):
    text = {
        "version": "terms-1",
        "kind": "terms",
        "text": "Be kind.",
        "digest": "sha256:x",
        "published": "then",
    }
    server.lay("GET /v1/terms", {"data": [text]})
    server.lay("GET /v1/terms/standing", {"accepted": [], "asked": ["terms-1"]})
    server.lay("GET /v1/terms/terms-1", text)
    accepted = {"version": "terms-1", "digest": "sha256:x", "accepted": "now"}
    server.lay("POST /v1/terms/terms-1/accept", accepted)
    assert transom("terms", "list").stdout == "terms-1\tthen\tto accept\n"
    assert transom("terms", "show", "terms-1").stdout == "Be kind.\n"
    assert "terms-1" in transom("terms", "accept", "terms-1").stdout


def test_the_trail_is_shown(server):
    entry = {
        "number": 7,
        "at": "then",
        "actor": "operator:root",
        "action": "record.read",
        "subject": "rec_1",
        "project_id": "prj_1",
        "person_id": "per_1",
        "reason": "They asked.",
        "details": {},
        "digest": "sha256:x",
    }
    server.lay("GET /v1/trail", {"data": [entry], "before": None})
    done = transom("trail", "--limit", "1", "--before", "9")
    assert done.stdout == "7\tthen\toperator:root\trecord.read\trec_1\tprj_1\tThey asked.\n"
    assert dict(server.requests[-1].url.params) == {"before": "9", "limit": "1"}
