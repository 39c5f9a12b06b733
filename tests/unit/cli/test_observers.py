"""`transom monitor`, `transom mirror` and `transom witness key`, as they end and what they print."""

from __future__ import annotations

import json
import shutil
from functools import partial

import httpx2
import pytest
import typer
from typer.testing import CliRunner

from tests.unit.client.served_log import DEPLOYMENT, ServedLog
from tests.unit.tlog.growing import LOG, witness_signer
from transom.cli import evidence, observers, witness
from transom.client import Client
from transom.client.observing.remote_log import RemoteLog
from transom.schema.canonical import sha256
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles, check_files
from transom.tlog.notes import VerifierKey
from transom.tlog.proofs import Proof


@pytest.fixture
def served(tmp_path, monkeypatch):
    made = ServedLog(tmp_path / "served")
    made.grow(300)
    monkeypatch.setattr(observers, "RemoteLog", partial(RemoteLog, transport=made.transport))
    monkeypatch.setattr(observers, "Client", partial(Client, transport=made.transport))
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "keys.json").write_text(json.dumps({"log": str(LOG.verifier), "records": []}))
    (tmp_path / "policy").write_text(f"log {LOG.verifier}\nwitness w {witness_signer().verifier}\nquorum w\n")
    monkeypatch.chdir(tmp_path)
    return made


def transom(*arguments):
    app = typer.Typer()
    observers.register(app)
    witness.register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def monitor(*more):
    return transom(
        "monitor", "http://log.example", "--keys", "keys.json", "--state", "state", "--once", *more
    )


def check(folder):
    app = typer.Typer()
    evidence.register(app)
    return CliRunner().invoke(app, ["log", "check", folder, "--keys", "keys.json"], catch_exceptions=False)


def kinds(done):
    return [json.loads(line)["alert"] for line in done.stdout.splitlines()]


def test_a_log_without_fault_ends_with_nothing_to_say(served):
    done = monitor()
    assert (done.exit_code, done.stdout) == (0, "")
    assert "300 entries of log.example/one" in done.stderr
    assert "deployments: not checked here" in done.stderr


def test_a_fault_is_a_line_of_json_and_a_status(served):
    monitor()
    shutil.rmtree(served.folder)
    served.grow(299)
    done = monitor()
    assert (done.exit_code, kinds(done)) == (1, ["rollback"])
    line = json.loads(done.stdout)
    assert line["time"].endswith("Z")
    assert line["message"] == "The log shows 299 entries, and has shown 300."
    assert line["evidence"].endswith(".contradiction.json")


def test_what_may_pass_is_looked_at_again_and_what_does_not_is_told(served, monkeypatch):
    monkeypatch.setattr(observers, "_AGAIN", 0.01)
    done = monitor("--policy", "policy", "--patience", "0.1")
    assert (done.exit_code, kinds(done)) == (1, ["no-quorum"])
    assert served.paths.count("/log/checkpoint") > 3


def test_a_deployment_comes_into_the_log_while_it_is_waited_for(served, monkeypatch):
    monkeypatch.setattr(observers, "_AGAIN", 0.01)
    card = {"object": "model", "created": 7, "owned_by": "o", "max_model_len": 1, "deployment": {}}
    served.replies["/v1/models"] = {"object": "list", "data": [card | {"id": "smol", "digest": DEPLOYMENT}]}
    done = monitor("--patience", "0")
    assert (done.exit_code, kinds(done)) == (1, ["unlogged-deployment"])
    served.add(b'{"digest":"%s","kind":"deployment"}' % DEPLOYMENT.encode())
    assert monitor("--patience", "0").exit_code == 0


def test_a_receipt_of_another_log_of_the_name_is_found(served, tmp_path):
    served.grow(200, "forked", tmp_path / "fork")
    fork = LogFiles(tmp_path / "fork", LOG.verifier)
    receipt = tmp_path / "friend.tlog-proof"
    receipt.write_text(str(Proof(3, tuple(fork.inclusion(3, 200)), fork.note().decode())))
    done = monitor("--compare", str(receipt))
    assert (done.exit_code, kinds(done)) == (1, ["split-view"])
    assert monitor("--compare", str(served.folder / "checkpoint")).exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--compare", "missing"), "missing cannot be read"),
        (("--keys", "policy"), "holds no keys"),
        (("--policy", "keys.json"), "is no policy"),
    ],
)
def test_what_is_asked_wrongly_is_not_taken_for_a_fault_of_the_log(served, options, words):
    done = monitor(*options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_nobody_there_is_not_taken_for_a_fault_of_the_log(monkeypatch, served):
    monkeypatch.setattr(observers, "RemoteLog", RemoteLog)
    done = transom("monitor", "http://127.0.0.1:9", "--keys", "keys.json", "--state", "s", "--once")
    assert done.exit_code == 3


MODELS = {"object": "list", "data": []}


def refusing(status, body=b"{}"):
    return lambda _: httpx2.Response(status, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", ["/v1/models", "/v1/programme"])
@pytest.mark.parametrize(
    "reply",
    [
        refusing(500, b'{"error": {"message": "No.", "code": "internal_error"}}'),
        refusing(429, b'{"error": {"message": "No.", "code": []}}'),
        refusing(400, b'{"error": {"message": "No.", "param": 5}}'),
        refusing(500, b"[" * 200_000),
        lambda _: (_ for _ in ()).throw(httpx2.ReadError("gone")),
    ],
)
def test_nothing_that_a_server_answers_elsewhere_silences_what_was_found(served, path, reply):
    monitor()
    shutil.rmtree(served.folder)
    served.grow(299)
    served.replies[path] = reply
    done = monitor("--patience", "0")
    assert done.exit_code == 1
    assert kinds(done)[0] == "rollback"


def test_what_was_answered_once_and_is_not_any_more_is_told(served):
    served.replies["/v1/models"] = MODELS
    assert monitor("--patience", "0").exit_code == 0
    served.replies["/v1/models"] = refusing(403, b'{"error": {"message": "No.", "code": "forbidden"}}')
    done = monitor("--patience", "0")
    assert (done.exit_code, kinds(done)) == (1, ["unanswered"])
    # Elsewhere, such as at a copy, it never was.
    other = transom("monitor", "http://copy.example", "--keys", "keys.json", "--state", "state", "--once")
    assert (other.exit_code, other.stdout) == (0, "")


def test_a_loop_tells_what_lasts_once_and_what_comes_again_again(served, monkeypatch):
    rounds = iter(range(6))

    def pause(seconds):
        number = next(rounds)
        if number == 5:
            raise KeyboardInterrupt
        # There, gone, gone, there, gone.
        hidden, shown = served.folder.parent / "hidden", served.folder
        if number in {0, 3}:
            shown.rename(hidden)
        if number == 2:
            hidden.rename(shown)

    monkeypatch.setattr(observers.time, "sleep", pause)
    done = transom(
        "monitor", "http://log.example", "--keys", "keys.json", "--state", "state", "--patience", "0"
    )
    assert (done.exit_code, kinds(done)) == (0, ["rollback", "rollback"])


@pytest.mark.parametrize(
    ("own", "options", "sent"),
    [
        ("http://log.example", (), {"Bearer tr_own"}),
        ("http://log.example/v1", (), {"Bearer tr_own"}),
        ("http://other.example", (), {None}),
        (None, (), {None}),
        (None, ("--api-key", "tr_given"), {"Bearer tr_given"}),
    ],
)
def test_a_key_goes_to_the_server_that_it_is_for(served, monkeypatch, own, options, sent):
    monkeypatch.setenv("TRANSOM_API_KEY", "tr_own")
    if own is not None:
        monkeypatch.setenv("TRANSOM_BASE_URL", own)
    seen = []

    def models(request):
        seen.append(request.headers.get("authorization"))
        return httpx2.Response(200, json=MODELS)

    served.replies["/v1/models"] = models
    done = monitor("--patience", "0", *options)
    assert set(seen) == sent
    assert ("not sent to" in done.stderr) == (sent == {None})


def test_a_folder_without_a_log_is_no_log_without_faults(served, tmp_path):
    transom("mirror", "http://log.example", "copy", "--keys", "keys.json")
    (tmp_path / "copy" / "checkpoint").unlink()
    done = check("copy")
    assert done.exit_code == 1
    assert "holds no log" in " ".join(done.stderr.split())


def test_a_document_of_a_copy_that_was_changed_is_found_and_fetched_again(served, tmp_path):
    name = sha256(b"key")
    served.add(Entry("key", name).content, Entry("key", sha256(b"gone")).content)
    served.replies[f"/log/documents/{name}"] = lambda _: httpx2.Response(200, content=b"key")
    copied = ("mirror", "http://log.example", "copy", "--keys", "keys.json")
    assert f"{sha256(b'gone')} is not there" in transom(*copied).stderr
    assert (check("copy").exit_code, "1 documents are not there" in check("copy").stderr) == (0, True)
    (tmp_path / "copy" / "documents" / name).write_bytes(b"other")
    done = check("copy")
    assert done.exit_code == 1
    assert "another document" in done.stderr
    transom(*copied)
    assert check("copy").exit_code == 0


def test_a_mirror_is_whole_and_says_how_large_it_is(served, tmp_path):
    done = transom("mirror", "http://log.example", "copy", "--keys", "keys.json")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "300 entries of log.example/one in copy" in done.stderr
    assert list(check_files(LogFiles(tmp_path / "copy", LOG.verifier))) == []
    shutil.rmtree(served.folder)
    served.grow(301, "forked")
    done = transom("mirror", "http://log.example", "copy", "--keys", "keys.json")
    assert done.exit_code == 1
    assert "does not begin with" in done.stderr


def test_the_key_of_a_witness_is_made_once_and_keeps_its_name(served, tmp_path):
    first = transom("witness", "key", "w", "--name", "w.example/1")
    key = VerifierKey.parse(first.stdout.strip())
    assert (key.name, key.kind) == ("w.example/1", 4)
    assert transom("witness", "key", "w").stdout == first.stdout
    assert (tmp_path / "w" / "witness.key").stat().st_mode & 0o777 == 0o600
    other = transom("witness", "key", "w", "--name", "w.example/2")
    assert other.exit_code == 1
    assert "a witness cannot be renamed" in other.stderr
    spaced = transom("witness", "key", "x", "--name", "two words")
    assert spaced.exit_code == 1
    assert "cannot be the name of a witness (--name)" in spaced.stderr
