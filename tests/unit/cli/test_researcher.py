"""The researcher's questions and models: what is printed where, and the status each ends with."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import researcher_standin
from researcher_standin import DEPLOYMENT, transom

STAMP = {"record": "rec_1", "seed": 3, "deployment": DEPLOYMENT}
ENVELOPE = {"id": "rec_1", "created": 7, "model": "smol", "transom": STAMP}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ASK = "POST /v1/chat/completions"

server, terminal, _pipe = researcher_standin.server, researcher_standin.terminal, researcher_standin.pipe


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


def test_models_are_listed_with_their_deployments(server) -> None:
    assert transom("models").stdout == f"smol\t{DEPLOYMENT}\t8192\n"
    assert json.loads(transom("models", "--json").stdout)["data"][0]["id"] == "smol"


def test_models_are_a_table_on_a_terminal(server, terminal) -> None:
    shown = transom("models").stdout
    assert "deployment" in shown
    assert DEPLOYMENT in shown
