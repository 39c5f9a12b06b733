"""`transom artifact`: what is printed where, what is kept, and what is refused."""

from __future__ import annotations

import json
from functools import partial

import httpx2
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from typer.testing import CliRunner

from transom.cli import artifacts, output
from transom.cli.main import app
from transom.client import Client

ID = "artifact:" + "ab" * 32
VIEW = {
    "id": ID,
    "bytes": 1234,
    "tensors": {"enc": {"dtype": "float16", "shape": [2, 3]}, "b": {"dtype": "int8", "shape": [2]}},
    "created": "2026-01-01T00:00:00.000000Z",
}
REFUSED = {"message": "Too much.", "type": "rate_limit_error", "param": None, "code": "insufficient_quota"}


class Server:
    def __init__(self):
        self.requests = []
        self.refusal = None

    def __call__(self, request):
        request.read()
        self.requests.append(request)
        if self.refusal is not None:
            return httpx2.Response(self.refusal, json={"error": REFUSED | {"layer": "quota"}})
        if request.url.path.endswith("/content"):
            return httpx2.Response(200, content=b"whole file")
        if request.method == "DELETE":
            return httpx2.Response(204)
        one = request.method == "POST" or request.url.path != "/v1/artifacts"
        return httpx2.Response(200, json=VIEW if one else {"data": [VIEW], "after": "3"})


@pytest.fixture
def server(monkeypatch):
    standin = Server()
    monkeypatch.setattr(artifacts, "Client", partial(Client, transport=httpx2.MockTransport(standin)))
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, force_terminal=False)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))
    return standin


def run(*arguments):
    return CliRunner().invoke(app, ["artifact", *map(str, arguments)])


@pytest.fixture
def file(tmp_path):
    save_file({"v": np.ones(3, np.float32)}, tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


def test_put_prints_what_plans_call_it_and_nothing_else(server, file):
    done = run("put", file)
    assert (done.exit_code, done.stdout) == (0, ID + "\n")
    assert server.requests[0].content == file.read_bytes()


def test_put_of_a_file_that_is_not_there_sends_nothing(server, tmp_path):
    done = run("put", tmp_path / "none.safetensors")
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr
    assert server.requests == []


def test_a_refusal_is_said_in_one_line(server, file):
    server.refusal = 429
    done = run("put", file)
    assert done.exit_code == 1
    assert "Too much." in done.stderr


def test_list_prints_a_line_for_each_and_how_to_go_on(server):
    done = run("list", "--limit", 1)
    assert done.stdout == f"{ID}\t1234\tenc, b\t{VIEW['created']}\n"
    assert "--after 3" in done.stderr


def test_get_prints_how_each_tensor_is_referred_to(server):
    assert run("get", ID).stdout == f"{ID}#enc\tfloat16\t2 x 3\n{ID}#b\tint8\t2\n"
    assert json.loads(run("get", ID, "--json").stdout) == VIEW


def test_get_keeps_the_file_where_it_is_asked_to(server, tmp_path):
    done = run("get", ID, "--out", tmp_path / "kept")
    assert done.exit_code == 0
    assert (tmp_path / "kept").read_bytes() == b"whole file"


def test_get_that_fails_leaves_what_was_there(server, tmp_path):
    (tmp_path / "kept").write_bytes(b"before")
    server.refusal = 404
    assert run("get", ID, "--out", tmp_path / "kept").exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"before"


def test_rm_deletes(server):
    assert run("rm", ID.removeprefix("artifact:")).exit_code == 0
    assert server.requests[0].method == "DELETE"


def test_what_is_no_id_is_refused_here(server):
    done = run("rm", "../x")
    assert done.exit_code == 2
    assert server.requests == []
