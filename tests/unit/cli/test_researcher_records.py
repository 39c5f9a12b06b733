"""The researcher's records: replayed, shown and listed, and the status that each command ends with."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import researcher_standin
from researcher_standin import DEPLOYMENT, attach, transom

from transom.schema.canonical import canonical_bytes, digest, sha256

server, terminal, _pipe = researcher_standin.server, researcher_standin.terminal, researcher_standin.pipe


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


@pytest.mark.parametrize(
    ("levels", "ends"),
    [
        (("EXACT", "EXACT"), 0),
        (("EXACT", "UNREPLAYABLE"), 2),
        (("UNREPLAYABLE", "OUTSIDE", "EXACT"), 1),
    ],
    ids=str,
)
def test_several_records_are_replayed_together_and_the_worst_decides(server, levels, ends) -> None:
    reports = [
        {"record": f"rec_{number}", "level": level, "tokens": 8, "elapsed_s": 0.5, "differing": number}
        for number, level in enumerate(levels)
    ]
    server.lay("POST /v1/records/replay", {"data": reports})
    ids = [report["record"] for report in reports]
    result = transom("replay", *ids)
    assert result.exit_code == ends
    lines = result.stdout.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [list(pair) for pair in zip(levels, ids, strict=True)]
    assert lines[1].endswith("1 of 8 tokens would have been others")
    assert json.loads(server.requests[-1].content) == {"ids": ids}
    assert json.loads(transom("replay", *ids, "--json").stdout) == {"data": reports}


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


def test_a_record_id_stays_in_one_piece_on_a_narrow_terminal(server, terminal, monkeypatch) -> None:
    attach(monkeypatch, force_terminal=True, width=60)
    name = "rec_01m83exv8qwbs2854ppjpn9dtv"
    server.lay("GET /v1/records", {"data": [view(id=name)], "after": None})
    assert name in transom("record", "list").stdout
