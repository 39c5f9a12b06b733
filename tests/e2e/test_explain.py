"""What is told of plans on the real model is what comes of them."""

from __future__ import annotations

import json
import subprocess

import pytest
from safetensors.numpy import load

from tests.documents import ROOT, blocks
from tests.e2e.server import TRANSOM
from transom import Client

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "howto" / "look-inside.md"
PLANS = [json.loads(block.text) for block in blocks(PAGE) if block.language == "json"]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan["return"][0])
def test_a_plan_of_the_page_gives_what_was_told(server, key, plan):
    with Client(server.url, key) as client:
        found = client.explain(plan)
        traced = client.trace(plan)
    assert found.missing_scopes == ()
    told = {each.name: (each.shape, each.axes) for each in found.values}
    if "steered" not in plan["runs"]:  # which may end early
        assert told == {name: (tensor.data.shape, tensor.axes) for name, tensor in traced.items()}
        assert found.returned_bytes == sum(array.nbytes for array in load(traced.content).values())
    assert found.rows.computed <= found.rows.alone


def test_the_command_tells_what_the_sweep_of_the_page_shares(server, key, tmp_path):
    (sweep,) = [plan for plan in PLANS if "sweep" in plan]
    (tmp_path / "plan.json").write_text(json.dumps(sweep))
    environment = server.environment | {"TRANSOM_BASE_URL": server.url, "TRANSOM_API_KEY": key}
    command = [TRANSOM, "explain", str(tmp_path / "plan.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert told["runs"] == "3, one of them in 240 cells: 242 sequences"
    assert told["shared"].startswith("232 begin in corrupt, at layers 1 to 29, from position 0 on")
    share = told["rows x layers"].partition(": ")[2].partition("%")[0]
    assert f"compute {share} % of what they would take alone" in PAGE.read_text(encoding="utf-8")
    assert told["patched.logits"].startswith("float32\t30 x 8 x 1 x 2\tsweep_layer, sweep_pos, pos, token")


def test_a_long_gradient_is_refused_with_how_long_a_prompt_would_fit(http):
    grad = {"of": {"logprob": 7}, "wrt": {"g": {"at": "resid_post.*", "pos": "last"}}}
    run = {"input": {"token_ids": list(range(100, 2600))}, "grad": grad}
    plan = {"model": PLANS[0]["model"], "runs": {"a": run}, "return": ["a.g"]}
    for path in ("/v1/traces", "/v1/traces/explain"):
        error = http.post(path, json=plan).json()["error"]
        assert (error["code"], error["param"]) == ("plan_too_large", "runs.a.grad")
        assert "enough for 1" in error["message"]
