"""Models of one's own: added by the command line, several served at once, in either number format."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.e2e.server import Server
from tests.tiny import make_tiny

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """A server over a library of two families, added by `transom model add`."""
    home, library = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("models")
    sources = tmp_path_factory.mktemp("sources")
    server = Server(home, library, dtype="bfloat16", allow_anonymous="true")
    for family in ("qwen3", "opt"):
        make_tiny(family, sources / family)
        server.command("model", "add", str(sources / family), "--name", f"tiny-{family}")
    yield server
    server.stop()


def ask(http, model: str, seed: int):
    body = {"prompt": [5, 6, 7, seed], "max_tokens": 24, "seed": seed, "logprobs": 3, "ignore_eos": True}
    answer = http.post(f"/models/{model}/v1/completions", json=body).json()
    return answer["model"], answer["system_fingerprint"], answer["choices"]


def test_two_models_are_served_at_once_in_bfloat16(two_models):
    two_models.start()
    with httpx2.Client(base_url=two_models.url, timeout=120) as http:
        listed = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
        assert set(listed) == {"tiny-opt", "tiny-qwen3"}
        wanted = [(model, seed) for seed in range(6) for model in sorted(listed)]
        alone = [ask(http, *each) for each in wanted]
        with ThreadPoolExecutor(len(wanted)) as pool:
            together = list(pool.map(lambda each: ask(http, *each), wanted))
    assert together == alone
    for (model, _), (answered_by, fingerprint, _) in zip(wanted, alone, strict=True):
        assert answered_by == model
        assert fingerprint == listed[model]["digest"]
        assert listed[model]["deployment"]["profile"]["dtype"] == "bfloat16"


def test_a_library_tells_what_it_holds(two_models):
    listed = two_models.command("model", "list")
    assert [line.split("\t")[:2] for line in listed.splitlines()] == [
        ["tiny-opt", "OPTForCausalLM"],
        ["tiny-qwen3", "Qwen3ForCausalLM"],
    ]
    assert "unchanged" in two_models.command("model", "verify", "tiny-opt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model", "add", "/nowhere/at/all"), "nowhere"),
        (("model", "add", "somebody/something"), "the hub must be reachable"),
        (("model", "verify", "absent"), "absent"),
        (("serve", "--model", "absent"), "absent"),
        (("admin", "key", "revoke", "absent"), "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_done_says_why_in_one_line(two_models, arguments, words):
    with pytest.raises(subprocess.CalledProcessError) as failure:
        two_models.command(*arguments)
    assert failure.value.returncode == 1
    assert words in failure.value.stderr
    assert "Traceback" not in failure.value.stderr
