"""A bundle from a real server, verified elsewhere: by a fresh base install, with the server off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx2
import pytest
from safetensors.torch import load_file, save_file

from tests.documents import ROOT
from tests.e2e.server import TRANSOM, Server
from transom.backends import manifest
from transom.client.bundle.layout import kind_of
from transom.schema.deployment import ModelManifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PLAN = {
    "runs": {"a": {"input": "The light", "read": {"x": {"at": "resid_post.*", "pos": "last"}}}},
    "return": ["a.x"],
}


def run(
    *arguments: str | Path, program: Path = TRANSOM, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    if program is not TRANSOM:
        kept.pop("PYTHONPATH", None)
    return subprocess.run(
        [program, *map(str, arguments)],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def base_install(tmp_path_factory) -> Path:
    """`transom` of an environment with nothing but what a researcher installs."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", ROOT], check=True, timeout=600)
    installed = run("list", "--format", "json", program=folder / "bin" / "pip").stdout
    assert not {"torch", "fastapi", "sqlalchemy"} & {each["name"] for each in json.loads(installed)}
    return folder / "bin" / "transom"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_library) -> Path:
    """A folder with a bundle, and the keys that its reader knows; its server is gone."""
    home, folder = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("owner")
    server = Server(home, tiny_library, allow_anonymous="true")
    server.start()
    try:
        key = server.command("admin", "key", "create", "--name", "tests")
        environment = {"TRANSOM_BASE_URL": server.url, "TRANSOM_API_KEY": key}
        make(folder, server, environment)
    finally:
        server.stop()
    return folder


def make(folder: Path, server: Server, environment: dict[str, str]) -> None:
    headers = {"authorization": f"Bearer {environment['TRANSOM_API_KEY']}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        body = {"model": "tiny", "prompt": "The light", "max_tokens": 3, "logprobs": 2, "temperature": 1.0}
        answers = [client.post("/v1/completions", json=body).json()["id"] for _ in range(2)]
    (folder / "plan.json").write_text(json.dumps(PLAN))
    done = run("trace", folder / "plan.json", "--out", folder / "read.safetensors", **environment)
    assert done.returncode == 0, done.stderr
    trace = next(word for word in done.stderr.split() if word.startswith("rec_"))
    (folder / "score.py").write_text("print('well')\n")
    (folder / "score.lock").write_text("numpy==2.4.1\n")
    more = ["--result", "read.safetensors", "--scorer", "score.py", "--lock", "score.lock", "--license"]
    more = [str(folder / each) if "." in each else each for each in more]
    export = [
        "export",
        *answers,
        trace,
        "--crate",
        folder / "out.zip",
        *more,
        "https://spdx.org/licenses/CC-BY-4.0",
    ]
    done = run(*export, **environment)
    assert done.returncode == 0, done.stderr
    first = (folder / "out.zip").read_bytes()
    assert "there already" in run(*export, **environment).stderr
    assert run(*export, "--force", **environment).returncode == 0
    # The log may have grown in between, and with it the receipts; nothing else changes.
    assert len((folder / "out.zip").read_bytes()) >= len(first) - 1000
    keys = run("log", "keys", **environment)
    (folder / "keys.json").write_text(keys.stdout)


def test_a_bundle_verifies_in_a_fresh_base_install_with_the_server_off(made, base_install, tmp_path):
    with zipfile.ZipFile(made / "out.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
        kinds = {kind_of(name)[0] for name in archive.namelist()}
    assert kinds == {
        "metadata",
        "readme",
        "keys",
        "record",
        "receipt",
        "deployment",
        "plan",
        "result",
        "scorer",
    }
    for bundle in (made / "out.zip", tmp_path / "unzipped"):
        done = run("verify", bundle, "--keys", made / "keys.json", program=base_install)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("question and answer are those that it commits to") == 3
        assert done.stdout.count("whose manifest is here") == 3
        assert "read the 1 tensors that are here" in done.stdout
        assert done.stderr == ""


def test_keys_of_the_bundle_are_not_believed_unless_somebody_says_so(made, base_install):
    done = run("verify", made / "out.zip", program=base_install)
    assert done.returncode == 1
    assert "who signed it is not shown" in done.stderr
    done = run("verify", made / "out.zip", "--keys-in-bundle", program=base_install)
    assert done.returncode == 0
    assert "who signed it is not shown" in done.stderr


def test_with_the_weights_at_hand_records_are_replayed_with_the_server_off(made, tiny_library):
    options = ("--keys", made / "keys.json", "--weights", tiny_library / "tiny")
    done = run("verify", made / "out.zip", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("replayed: EXACT") == 3


def test_weights_that_are_not_those_of_the_records_say_so(made, tiny_library, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree((tiny_library / "tiny").resolve(), changed)
    manifest.save(changed, replace_one_weight(changed))
    done = run("verify", made / "out.zip", "--keys", made / "keys.json", "--weights", changed)
    assert done.returncode == 1
    assert done.stderr.count("replayed: UNREPLAYABLE DEPLOYMENT") == 3


def replace_one_weight(root: Path) -> ModelManifest:
    (path,) = root.glob("*.safetensors")
    weights = load_file(path)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] * 1.001}, path, metadata={"format": "pt"})
    return manifest.compute(root)


def test_a_base_install_says_what_weights_need(made, tiny_library, base_install):
    options = ("--keys", made / "keys.json", "--weights", tiny_library / "tiny")
    done = run("verify", made / "out.zip", *options, program=base_install)
    assert done.returncode == 2
    assert 'pip install "transom[server,engine]"' in done.stderr
