"""`transom trace`, `explain` and `points`: what is printed where, what is kept, and what is refused."""

from __future__ import annotations

import json
from functools import partial

import httpx2
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.parts import ARRAY, BODY, TOTAL, KeepingServer, digest
from tests.unit.client.test_inside import EXPLANATION
from transom.cli import inside, output
from transom.cli.main import app
from transom.client import Client

PLAN = {"model": "smol", "runs": {"a": {"input": "x"}}, "return": ["a.x"]}
REFUSED = {"message": "No such layer.", "type": "invalid_request_error", "param": "runs.a.read.x.at"}


class Server(KeepingServer):
    """Carries out plans, or answers every request with one reply."""

    def __init__(self):
        super().__init__()
        self.status, self.content = 200, None

    def __call__(self, request):
        if self.content is None:
            return super().__call__(request)
        self.requests.append(request)
        return httpx2.Response(self.status, content=self.content)


@pytest.fixture
def server(monkeypatch):
    standin = Server()
    monkeypatch.setattr(inside, "Client", partial(Client, transport=httpx2.MockTransport(standin)))
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, force_terminal=False)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))
    return standin


def transom(*arguments, given=None):
    return CliRunner().invoke(app, list(map(str, arguments)), input=given)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", None], ids=["empty", "half", "a list", "no text", "no file"]
)
def test_what_holds_no_plan_is_not_sent(server, tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    result = transom("trace", path)
    assert (result.exit_code, result.stdout, server.requests) == (2, "", [])
    assert result.stderr.startswith("Error: ")


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_charged(server, plan, tmp_path):
    result = transom("trace", plan, "--out", tmp_path / "nowhere" / "x.safetensors")
    assert (result.exit_code, server.requests) == (2, [])
    assert "cannot be written" in result.stderr


def test_a_folder_is_no_place_for_a_result(server, plan, tmp_path):
    result = transom("trace", plan, "--out", tmp_path)
    assert (result.exit_code, server.requests) == (2, [])


@pytest.mark.parametrize(("status", "code"), [(400, 2), (403, 4), (404, 1), (500, 1)])
def test_a_refusal_keeps_what_was_there_before(server, plan, tmp_path, status, code):
    server.status = status
    server.content = json.dumps({"error": REFUSED | {"code": "x", "layer": "api"}}).encode()
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"earlier")
    result = transom("trace", plan, "--out", out)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "No such layer." in result.stderr
    assert out.read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "x.safetensors"}


def test_something_else_than_a_result_is_no_servers_reply(server, plan, tmp_path):
    server.content = b"<html>"
    result = transom("trace", plan, "--out", tmp_path / "x.safetensors")
    assert result.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_values_are_alone_on_stdout_and_their_record_on_stderr(server, plan):
    result = transom("trace", plan)
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == [
        f"a.total\tfloat32\t\t\t{digest(TOTAL.tobytes())}",
        f"a.x\tfloat32\t2 x 3 x 4\tlayer, pos, unit\t{digest(ARRAY.tobytes())}",
    ]
    # Nothing is fetched that nobody keeps.
    assert server.methods == ["POST", "DELETE"]
    assert result.stderr == "rec_1 · sha256:abababababab · again: transom replay rec_1\n"


def test_the_result_is_kept_as_it_came_and_nothing_beside_it(server, plan, tmp_path):
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"earlier")
    assert transom("trace", plan, "--out", out).exit_code == 0
    assert out.read_bytes() == BODY
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "x.safetensors"}


def test_a_line_that_breaks_is_gone_on_with(server, plan, tmp_path):
    server.breaks = [13]
    assert transom("trace", plan, "--out", tmp_path / "x.safetensors").exit_code == 0
    assert (tmp_path / "x.safetensors").read_bytes() == BODY


def test_a_plan_may_come_through_standard_input(server):
    # What is kept is safetensors, whatever the plan says.
    assert transom("trace", "-", given=json.dumps(PLAN | {"format": "json"})).exit_code == 0
    assert json.loads(server.requests[0].content) == PLAN | {"format": "parts"}


POINTS = [
    {"name": "resid_post", "layers": [0, 1, 2], "heads": None, "width": 8, "differentiable": True},
    {"name": "attn_probs", "layers": [0, 1, 2], "heads": 4, "width": None, "differentiable": False},
    {"name": "final_norm", "layers": None, "heads": None, "width": 8, "differentiable": True},
    {"name": "mlp_pre", "layers": [], "heads": None, "width": None, "differentiable": False},
]


@pytest.fixture
def page(server):
    data = []
    for point in POINTS:
        there = point["layers"] != []
        reason = None if there else "no gate here"
        data.append(point | {"description": "", "readable": there, "writable": there, "reason": reason})
    page = {"model": "smol", "deployment": "sha256:0", "data": data}
    server.content = json.dumps(page).encode()
    return page


def test_points_say_where_how_wide_what_for_and_why_not(server, page):
    result = transom("points", "smol")
    assert server.requests[-1].url.params["model"] == "smol"
    assert result.stdout.splitlines() == [
        "resid_post\t0 to 2\t8\tread, write, gradient",
        "attn_probs\t0 to 2\t4 x its length\tread, write",
        "final_norm\tthe model's\t8\tread, write, gradient",
        "mlp_pre\tnone\tno gate here\t",
    ]


def test_points_as_json_are_what_the_server_said(server, page):
    result = transom("points", "smol", "--json")
    assert [point["name"] for point in json.loads(result.stdout)["data"]] == [p["name"] for p in POINTS]


def test_an_account_says_what_is_shared_what_it_costs_and_what_comes_back(server, plan):
    server.content = json.dumps(EXPLANATION).encode()
    result = transom("explain", plan)
    assert result.exit_code == 0, result.stderr
    told = dict(line.split("\t", 1) for line in result.stdout.splitlines())
    assert told["runs"] == "2, one of them in 6 cells: 7 sequences"
    assert told["rows x layers"] == "90 of 210: 43% of what the runs take alone"
    assert told["shared"] == (
        "6 begin in a, at layers 1 to 2, from position 0 on: 120 rows x layers saved, 4 KiB kept for them"
    )
    assert told["operations"] == "1.5 KFLOP"
    assert told["memory"] == "4.09 KiB: 96 B values, 4 KiB kept for other runs"
    assert told["disk"] == "5 KiB"
    assert told["charged at most"] == (
        "1 request, 70 tokens, 3.5 engine seconds, 96 bytes of internals, rank 0.25"
    )
    assert told["scopes"] == "internals:read, internals:write"
    assert told["point"] == "a.x is resid_post.1"
    assert told["a.x"] == "float32\t6 x 4\tsweep_layer, unit\t96 B"
    assert "lacks internals:write" in result.stderr
    assert server.requests[0].url.path == "/v1/traces/explain"


def test_an_account_as_json_is_what_the_server_said(server, plan):
    server.content = json.dumps(EXPLANATION).encode()
    result = transom("explain", plan, "--json")
    assert json.loads(result.stdout) == EXPLANATION


def test_a_plan_that_would_be_refused_is_refused_by_the_same_words(server, plan):
    server.status, server.content = 400, json.dumps({"error": REFUSED}).encode()
    result = transom("explain", plan)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such layer." in result.stderr
