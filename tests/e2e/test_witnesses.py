"""A gateway, two witnesses and a monitor as in `deploy/compose.yaml`, each a process: what no liar can do."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.e2e.server import TRANSOM, Server, free_port
from transom.tlog.asking import NotCosigned, WitnessDoor
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles
from transom.tlog.keys import open_key
from transom.tlog.policies import Policy
from transom.tlog.submissions import Submission
from transom.tlog.writer import LogWriter

pytestmark = pytest.mark.e2e


class WitnessProcess:
    """`transom witness serve`, to be killed and started again."""

    def __init__(self, folder: Path, name: str, policy: Path) -> None:
        self.folder, self.policy, self.port = folder, policy, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [TRANSOM, "witness", "key", folder, "--name", name]
        self.key = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            TRANSOM,
            "witness",
            "serve",
            self.folder,
            "--policy",
            self.policy,
            "--port",
            str(self.port),
        ]
        with (self.folder / "witness.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "witness.log").read_text()
            try:
                if httpx2.get(self.url, timeout=5).status_code == 404:
                    return
            except httpx2.TransportError:
                time.sleep(0.1)
        raise AssertionError("the witness was not there in time")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def transom(*arguments, status=0) -> list[str]:
    """The lines that a command prints."""
    done = subprocess.run(
        [TRANSOM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()


@contextmanager
def static(folder: Path):
    """A folder behind a web server that knows nothing of logs."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args) -> None:
        pass


def complete(url: str) -> str:
    body = {"model": "tiny", "prompt": "The door", "max_tokens": 2}
    reply = httpx2.post(f"{url}/v1/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()["id"]


def kinds(lines: list[str]) -> list[str]:
    return [json.loads(line)["alert"] for line in lines]


def test_what_two_witnesses_have_cosigned_cannot_be_taken_back(tmp_path, tiny_models, monkeypatch):
    # Before anything runs: the keys of all, and one policy for all.
    policy = tmp_path / "policy"
    policy.write_text("quorum none\n")
    (tmp_path / "home").mkdir()
    gateway = Server(tmp_path / "home", tiny_models, allow_anonymous="true", log_policy=str(policy))
    witnesses = [WitnessProcess(tmp_path / f"w{n}", f"w{n}.example", policy) for n in (1, 2)]
    lines = [f"log {gateway.command('admin', 'log', 'key')} {gateway.url}/log"]
    lines += [f"witness w{n} {each.key} {each.url}" for n, each in enumerate(witnesses, 1)]
    policy.write_text("\n".join([*lines, "group both all w1 w2", "quorum both", ""]))
    monkeypatch.setenv("TRANSOM_BASE_URL", gateway.url)
    monkeypatch.setenv("TRANSOM_API_KEY", "")
    try:
        for each in witnesses:
            each.start()
        gateway.start()
        scene(tmp_path, gateway, witnesses, policy)
    finally:
        for each in witnesses:
            each.kill()
        gateway.stop()


def scene(tmp_path: Path, gateway: Server, witnesses: list[WitnessProcess], policy: Path) -> None:
    believed = Policy.parse(policy.read_text())
    keys = tmp_path / "keys.json"
    keys.write_text("\n".join(transom("log", "keys")))
    options = ("--keys", keys, "--policy", policy, "--state", tmp_path / "state", "--once", "--patience")

    # An honest log: a receipt with a quorum, verified offline; a copy; a monitor with nothing to say.
    record = complete(gateway.url)
    receipt = cosigned_receipt(tmp_path, record, believed)
    (tmp_path / "record.json").write_text("\n".join(transom("record", "show", record, "--json")))
    transom("verify", tmp_path / "record.json", receipt, "--keys", keys, "--policy", policy)
    assert transom("monitor", gateway.url, *options, "60", "--compare", receipt) == []
    transom("mirror", gateway.url, tmp_path / "copy", "--keys", keys)
    transom("log", "check", tmp_path / "copy", "--keys", keys)

    a_fork_is_seen(tmp_path, gateway, witnesses, believed, options)

    # The log itself goes on, and is cosigned by both again.
    cosigned_receipt(tmp_path, complete(gateway.url), believed)
    assert transom("monitor", gateway.url, *options, "60") == []

    a_rollback_is_seen(tmp_path, witnesses[1], believed, options)


def a_fork_is_seen(tmp_path, gateway, witnesses, believed, options) -> None:
    """Signed by the log's own key, and longer than the log."""
    fork, key = tmp_path / "fork", next(iter(believed.logs))
    with LogWriter(fork, open_key(gateway.home / "log.key", None)) as log:
        log.append([Entry("record", "sha256:" + "ab" * 32).content] * 200)
    with static(fork) as forked:
        lines = transom("monitor", forked, *options, "0", status=1)
    assert kinds(lines)[0] == "split-view"
    evidence = json.loads(Path(json.loads(lines[0])["evidence"]).read_text())
    heads = [open_checkpoint(evidence[name], key)[0] for name in ("seen", "shown")]
    assert heads[1].size == 200
    assert heads[0].root != heads[1].root

    # No witness cosigns it; neither one that was killed and started again, and so has only its folder.
    witnesses[0].kill()
    witnesses[0].start()
    files = LogFiles(fork, key)
    forked_head = open_checkpoint(files.note(), key)[1]
    for n, each in enumerate(witnesses, 1):
        door = WitnessDoor(believed.witnesses[f"w{n}"].key, each.url, files)
        with door, pytest.raises(NotCosigned, match="422"):
            door.cosign(forked_head)


def a_rollback_is_seen(tmp_path, witness, believed, options) -> None:
    """The log as it was when the copy was made."""
    with static(tmp_path / "copy") as older:
        lines = transom("monitor", older, *options, "0", status=1)
    assert kinds(lines)[0] == "rollback"
    copied = LogFiles(tmp_path / "copy", next(iter(believed.logs)))
    head = copied.checkpoint()
    sent = str(Submission(head.size, (), copied.note().decode())).encode()
    reply = httpx2.post(f"{witness.url}/add-checkpoint", content=sent)
    assert reply.status_code == 409
    assert int(reply.text) > head.size


def cosigned_receipt(tmp_path: Path, record: str, policy: Policy) -> Path:
    path = tmp_path / f"{record}.tlog-proof"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        done = subprocess.run([TRANSOM, "receipt", record], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            path.write_text(done.stdout)
            if "— w1.example" in done.stdout and "— w2.example" in done.stdout:
                return path
        time.sleep(0.5)
    raise AssertionError("there was no receipt with a quorum in time")
