"""The researcher's commands: what is printed where, and the status each ends with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from transom.cli import output, researcher
from transom.client import Client
from transom.schema.canonical import canonical_bytes, digest, sha256

DEPLOYMENT = "sha256:" + "ab" * 32
STAMP = {"record": "rec_1", "seed": 3, "deployment": DEPLOYMENT}
ENVELOPE = {"id": "rec_1", "created": 7, "model": "smol", "transom": STAMP}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
MODEL = {"id": "smol", "created": 7, "owned_by": "operator", "digest": DEPLOYMENT, "deployment": {}}
ASK = "POST /v1/chat/completions"


@dataclass
class Server:
    """Answers `METHOD /path` with what was laid out for it."""

    replies: dict[str, Callable[[], httpx2.Response]] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.replies[f"{request.method} {request.url.path}"]()

    def lay(self, request: str, body: Any, status: int = 200, **headers: str) -> None:
        self.replies[request] = lambda: httpx2.Response(status, json=body, headers=headers)

    def lay_stream(self, request: str, *events: bytes) -> None:
        headers = {"content-type": "text/event-stream"}
        self.replies[request] = lambda: httpx2.Response(200, content=b"".join(events), headers=headers)

    @property
    def asked(self) -> Any:
        return json.loads(self.requests[-1].content)


@pytest.fixture
def server(monkeypatch) -> Server:
    standin = Server()
    standin.lay("GET /v1/models", {"object": "list", "data": [MODEL | {"max_model_len": 8192}]})
    monkeypatch.setattr(researcher, "Client", partial(Client, transport=httpx2.MockTransport(standin)))
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return standin


@pytest.fixture(autouse=True)
def _pipe(monkeypatch) -> None:
    """Neither stream is a terminal, whatever the environment says of colours."""
    _attach(monkeypatch, force_terminal=False)


@pytest.fixture
def terminal(monkeypatch) -> None:
    """Both streams are terminals."""
    _attach(monkeypatch, force_terminal=True, color_system="standard", width=100)


def _attach(monkeypatch, **options: Any) -> None:
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, **options)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))


def transom(*arguments: str) -> Result:
    app = typer.Typer()
    researcher.register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def event(*choices: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps(ENVELOPE | {"choices": choices} | more).encode() + b"\n\n"


def said(text: str, **more: Any) -> bytes:
    return event({"index": 0, "delta": {"content": text}, "finish_reason": None} | more)


END = event({"index": 0, "delta": {}, "finish_reason": "stop"}) + event(usage=USAGE) + b"data: [DONE]\n\n"


def refusal(message: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": param, "code": code, "layer": "api"}}


def test_an_answer_is_alone_on_stdout_and_its_record_on_stderr(server) -> None:
    server.lay_stream(ASK, said("Bl"), said("ue."), END)
    result = transom("ask", "Colour?")
    assert (result.exit_code, result.stdout) == (0, "Blue.\n")
    assert result.stderr == (
        "rec_1 · seed 3 · 3 + 2 tokens · sha256:abababababab · again: transom replay rec_1\n"
    )


def test_every_option_reaches_the_server(server) -> None:
    server.lay_stream(ASK, said("x"), END)
    options = ["--system", "Be brief.", "--temperature", "0", "--seed", "-5", "--max-tokens", "9"]
    transom("ask", "Colour?", *options, "--model", "big", "--top-logprobs", "2")
    assert server.asked == {
        "model": "big",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Colour?"}],
        "temperature": 0.0,
        "seed": -5,
        "max_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_address_and_key_may_be_given_as_options(server) -> None:
    transom("models", "--base-url", "http://a.test/v1", "--api-key", "tr_1")
    assert str(server.requests[0].url) == "http://a.test/v1/models"
    assert server.requests[0].headers["authorization"] == "Bearer tr_1"


def test_raw_continues_the_text_itself(server) -> None:
    piece = {"index": 0, "text": " blue", "finish_reason": None}
    done = event({"index": 0, "text": "", "finish_reason": "length"}) + b"data: [DONE]\n\n"
    server.lay_stream("POST /v1/completions", event(piece), done)
    result = transom("ask", "--raw", "The sky is", "--top-logprobs", "2")
    assert result.stdout == " blue\n"
    assert "ended by length" in result.stderr
    assert (server.asked["prompt"], server.asked["logprobs"]) == ("The sky is", 2)


def test_raw_has_no_place_for_a_system_message(server) -> None:
    result = transom("ask", "--raw", "x", "--system", "y")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--system" in result.stderr


def test_json_is_the_servers_reply_byte_for_byte(server) -> None:
    message = {"role": "assistant", "content": "Blue."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    server.lay(ASK, ENVELOPE | {"choices": [choice], "usage": USAGE, "novelty": 0.1000000014901161})
    result = transom("ask", "Colour?", "--json")
    assert result.stdout.encode() == server.replies[ASK]().content + b"\n"
    assert "stream" not in server.asked


def scored(token: str) -> dict[str, Any]:
    top = [{"token": token, "logprob": -0.25, "bytes": None}, {"token": "\n", "logprob": -2, "bytes": None}]
    return {"logprobs": {"content": [{"token": token, "logprob": -0.25, "bytes": None, "top_logprobs": top}]}}


def test_logprobs_are_tab_separated_in_a_pipe(server) -> None:
    server.lay_stream(ASK, said("Bl", **scored("Bl")), said("ue", **scored("ue")), END)
    result = transom("ask", "Colour?", "--top-logprobs", "2")
    rows = ['"Bl"\t-0.2500\t"Bl" -0.2500  "\\n" -2.0000', '"ue"\t-0.2500\t"ue" -0.2500  "\\n" -2.0000']
    assert result.stdout.splitlines() == ["Blue", "", *rows]


def test_measures_are_columns_in_their_order(server) -> None:
    told = {"measures": [{"token": "Bl", "token_id": 5, "entropy": 1.25, "rank": 3, "top_k_mass": 0.5}]}
    server.lay_stream(ASK, said("Bl", **told), END)
    result = transom("ask", "x", "--measure", "top_k_mass=7", "--measure", "rank", "--measure", "entropy")
    assert server.asked["measures"] == {"top_k_mass": 7, "rank": True, "entropy": True}
    assert result.stdout.splitlines() == ["Bl", "", '"Bl"\t1.2500\t3\t0.5000']


def test_a_measure_with_no_number_is_refused_before_anything_is_asked(server) -> None:
    result = transom("ask", "x", "--measure", "top_k_mass=many")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "top_k_mass=10" in result.stderr


def test_logprobs_are_a_table_on_a_terminal(server, terminal) -> None:
    server.lay_stream(ASK, said("Bl", **scored("Bl")), END)
    assert "likeliest" in transom("ask", "Colour?", "--top-logprobs", "2").stdout


def test_a_model_cannot_command_the_terminal(server, terminal) -> None:
    server.lay_stream(ASK, said("a\x1b]0;owned\x07\x9b2J\tb\r\n"), END)
    assert transom("ask", "Colour?").stdout == "a\ufffd]0;owned\ufffd\ufffd2J\tb\ufffd\n\n"


def test_a_pipe_gets_the_text_untouched(server) -> None:
    server.lay_stream(ASK, said("a\x1b[1m\tb"), END)
    assert transom("ask", "Colour?").stdout == "a\x1b[1m\tb\n"


def test_nothing_in_a_pipe_is_coloured(server) -> None:
    server.lay_stream(ASK, said("Blue."), END)
    for arguments in (["ask", "x"], ["models"]):
        assert "\x1b" not in transom(*arguments).output


def test_an_error_inside_the_stream_ends_with_no_and_keeps_what_came(server) -> None:
    failed = b"event: error\ndata: " + json.dumps(refusal("It died.", "generation_failed")).encode() + b"\n\n"
    server.lay_stream(ASK, said("Bl"), failed, b"data: [DONE]\n\n")
    result = transom("ask", "Colour?")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "Bl\n", "Error: It died.\n")


def test_a_refused_question_prints_nothing_on_stdout(server) -> None:
    server.lay(ASK, refusal("temperature: too hot.", "invalid_value", "temperature"), 400)
    result = transom("ask", "Colour?", "--temperature", "99")
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("status", "code", "ends", "remedy"),
    [
        (400, "invalid_value", 2, "No"),
        (401, "invalid_api_key", 4, "Set TRANSOM_API_KEY, or pass --api-key"),
        (403, "permission_denied", 4, "Use a key that allows it"),
        (404, "not_found", 1, "No"),
        (413, "payload_too_large", 2, "No"),
        (429, "rate_limited", 1, "Try again in 9 s"),
        (500, "generation_failed", 1, "No"),
        (500, "internal_error", 1, "No"),
        (503, "engine_unavailable", 1, "Try again in 9 s"),
    ],
)
def test_an_error_is_one_line_with_its_remedy_and_an_honest_status(
    server, status, code, ends, remedy
) -> None:
    server.replies["GET /v1/models"] = lambda: httpx2.Response(
        status, json=refusal("No\nand no", code), headers={"retry-after": "9"}
    )
    result = transom("models")
    assert (result.exit_code, result.stdout) == (ends, "")
    assert result.stderr.startswith("Error: No and no.")
    assert result.stderr.count("\n") == 1
    assert remedy in result.stderr


def test_a_server_out_of_reach_ends_with_three(server) -> None:
    def refused() -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    server.replies["GET /v1/models"] = refused
    result = transom("models")
    assert result.exit_code == 3
    assert "Nothing answers at http://127.0.0.1:8600. Check that the server runs" in result.stderr


def test_what_is_no_transom_server_ends_with_three(server) -> None:
    server.replies["GET /v1/models"] = lambda: httpx2.Response(502, html="<h1>Bad Gateway</h1>")
    assert transom("models").exit_code == 3


def test_an_unknown_option_ends_with_two(server) -> None:
    assert transom("ask", "x", "--colour", "blue").exit_code == 2


def test_a_failure_on_record_names_its_record(server) -> None:
    server.replies["GET /v1/models"] = lambda: httpx2.Response(
        500, json=refusal("It died", "generation_failed"), headers={"x-transom-record": "rec_9"}
    )
    assert transom("models").stderr == "Error: It died. It is on record as rec_9.\n"


@pytest.mark.parametrize(
    ("level", "ends"), [("EXACT", 0), ("WITHIN", 0), ("OUTSIDE", 1), ("UNREPLAYABLE", 2)]
)
def test_a_replay_ends_with_its_level(server, level, ends) -> None:
    report = {"record": "rec_1", "level": level, "tokens": 18, "elapsed_s": 0.25}
    server.lay("POST /v1/records/rec_1/replay", report)
    result = transom("replay", "rec_1")
    assert (result.exit_code, result.stdout) == (ends, f"{level}  rec_1  18 tokens in 0.25 s\n")
    result = transom("replay", "rec_1", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (ends, report)


def test_a_replay_that_differs_says_where(server) -> None:
    report = {"record": "rec_1", "level": "OUTSIDE", "tokens": 18, "elapsed_s": 0.25, "reason": "TOKEN at 17"}
    server.lay(
        "POST /v1/records/rec_1/replay", report | {"first_difference": {"sequence": 0, "position": 17}}
    )
    assert "TOKEN at 17  first difference: sequence 0, token 17" in transom("replay", "rec_1").stdout


def test_a_level_is_coloured_on_a_terminal(server, terminal) -> None:
    server.lay(
        "POST /v1/records/rec_1/replay", {"record": "rec_1", "level": "EXACT", "tokens": 1, "elapsed_s": 0}
    )
    assert transom("replay", "rec_1").stdout.startswith("\x1b[1;32mEXACT\x1b[0m")


def view(**changes: Any) -> dict[str, Any]:
    """A record as the server hands it out."""
    output_ = [{"tokens": 2, "token_ids": "sha256:t", "text": "sha256:x", "finish_reason": "stop"}]
    summary = {"model": "smol", "deployment": DEPLOYMENT, "status": "complete"}
    endpoint, answered = "/v1/chat/completions", "2026-01-31T09:05:01.000000Z"
    predicate = summary | {
        "record": "rec_1",
        "time": {"received": answered, "answered": answered},
        "request": {
            "endpoint": endpoint,
            "body": "sha256:b",
            "messages": "sha256:m",
            "prompts": ["sha256:p"],
        },
        "randomness": {"seed": "3", "source": "explicit"},
        "output": output_,
        "project": {"id": "local", "sequence": 4},
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "rec_1", "digest": {"sha256": digest(output_).removeprefix("sha256:")}}],
        "predicateType": "urn:transom:record:v1",
        "predicate": predicate,
    }
    payload = canonical_bytes(statement)
    turns = [{"role": "user", "content": "Colour? [bold]"}]
    whole = summary | {
        "id": "rec_1",
        "created": answered,
        "project": "local",
        "endpoint": endpoint,
        "sequence": 4,
        "digest": sha256(payload),
        "envelope": {"payload": base64.b64encode(payload).decode(), "signatures": []},
        "statement": statement,
        "openings": {
            "request": {"salt": "00", "json": json.dumps({"messages": turns, "seed": 3})},
            "messages": {"salt": "00", "json": json.dumps(turns)},
            "prompts": [{"salt": "00", "token_ids": [1]}],
            "sequences": [{"text": {"salt": "00", "text": "Blue.\x1b[2J"}}],
            "error": None,
        },
    }
    return whole | changes


def test_a_record_is_shown_with_its_question_answer_and_commitments(server) -> None:
    server.lay("GET /v1/records/rec_1", view())
    result = transom("record", "show", "rec_1")
    assert (result.exit_code, result.stderr) == (0, "")
    parts = ["rec_1  complete", "user: Colour? [bold]", '{"seed": 3}', "Blue.", "2 tokens, ended by stop"]
    for part in [*parts, f"digest      {view()['digest']}", "prompt 0    sha256:p"]:
        assert part in result.stdout


def test_a_record_is_shown_in_panels_on_a_terminal_that_it_cannot_command(server, terminal) -> None:
    server.lay("GET /v1/records/rec_1", view())
    shown = transom("record", "show", "rec_1").stdout
    assert "commitments" in shown
    assert "╭" in shown
    assert "\x1b[2J" not in shown


def test_a_records_json_is_the_servers(server) -> None:
    server.lay("GET /v1/records/rec_1", view() | {"novelty": 1})
    assert json.loads(transom("record", "show", "rec_1", "--json").stdout)["novelty"] == 1


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_record_that_contradicts_itself_ends_with_no(server, arguments) -> None:
    server.lay("GET /v1/records/rec_1", view(model="big"))
    result = transom("record", "show", "rec_1", *arguments)
    assert result.exit_code == 1
    assert "model is not the statement's" in result.stderr


def test_a_record_of_an_unknown_form_is_not_shown_as_something_else(server) -> None:
    server.lay("GET /v1/records/rec_1", view(openings={"novelty": 1}))
    result = transom("record", "show", "rec_1")
    assert result.exit_code == 1
    assert "use --json" in result.stderr


def test_a_completions_prompt_is_shown_as_it_was_sent(server) -> None:
    openings = view()["openings"] | {"messages": None}
    openings["request"] = {"salt": "00", "json": json.dumps({"prompt": [[1, 2]], "max_tokens": 1})}
    server.lay("GET /v1/records/rec_1", view(openings=openings))
    assert '[[1, 2]]\n\n{"max_tokens": 1}' in transom("record", "show", "rec_1").stdout


def test_records_are_listed_one_a_line_with_the_way_to_more(server) -> None:
    server.lay("GET /v1/records", {"data": [view()], "after": "c1"})
    result = transom("record", "list", "--limit", "1")
    assert result.stdout == ("rec_1\t2026-01-31T09:05:01.000000Z\tcomplete\tsmol\t/v1/chat/completions\n")
    assert result.stderr == "more: transom record list --limit 1 --after c1\n"
    assert json.loads(transom("record", "list", "--json").stdout)["after"] == "c1"


def test_models_are_listed_with_their_deployments(server) -> None:
    assert transom("models").stdout == f"smol\t{DEPLOYMENT}\t8192\n"
    assert json.loads(transom("models", "--json").stdout)["data"][0]["id"] == "smol"


def test_models_are_a_table_on_a_terminal(server, terminal) -> None:
    shown = transom("models").stdout
    assert "deployment" in shown
    assert DEPLOYMENT in shown


def test_a_record_id_stays_in_one_piece_on_a_narrow_terminal(server, terminal, monkeypatch) -> None:
    _attach(monkeypatch, force_terminal=True, width=60)
    name = "rec_01m83exv8qwbs2854ppjpn9dtv"
    server.lay("GET /v1/records", {"data": [view(id=name)], "after": None})
    assert name in transom("record", "list").stdout
