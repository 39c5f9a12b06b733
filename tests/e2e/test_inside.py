"""Plans on the real model: known behaviour, records that replay, and nobody else disturbed by a bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load

from tests.documents import ROOT, blocks
from tests.e2e.server import TRANSOM
from transom import Client

pytestmark = pytest.mark.e2e

MODEL = "smollm2-135m-instruct"
PARIS = "The Eiffel Tower is in the city of"
ROME = "The Colosseum is in the city of"
SALAD = {"token_ids": list(range(100, 160))}


def trace(http, runs, returns, **more):
    return http.post("/v1/traces", json={"model": MODEL, "runs": runs, "return": returns, **more})


def arrays(http, runs, returns, **more):
    response = trace(http, runs, returns, **more)
    assert response.status_code == 200, response.text
    return load(response.content)


def token(http, text):
    (found,) = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    return found


def lens(at, *targets, pos=-1):
    kept = {"targets": list(targets)} if targets else {"topk": 3}
    return {"at": at, "pos": pos, "reduce": {"unembed": kept}}


def test_the_answer_rises_through_the_layers(http):
    found = arrays(http, {"a": {"input": PARIS, "read": {"lens": lens("resid_post.*")}}}, ["a.lens"])
    ids = found["a.lens.ids"][:, 0, 0]
    assert found["a.lens.logprobs"].shape == (30, 1, 3)
    assert ids[-1] == token(http, " Paris")
    assert ids[0] != ids[-1]


def test_the_last_layer_seen_through_the_lens_is_the_models_own_distribution(http):
    found = arrays(http, {"a": {"input": PARIS, "read": {"lens": lens("resid_post.29")}}}, ["a.lens"])
    asked = {"model": MODEL, "prompt": PARIS, "max_tokens": 1, "logprobs": 3, "temperature": 0}
    choice = http.post("/v1/completions", json=asked).json()["choices"][0]
    expected = sorted(choice["logprobs"]["top_logprobs"][0].values(), reverse=True)
    assert found["a.lens.logprobs"].ravel() == pytest.approx(expected, abs=1e-5)


def test_a_patched_stream_takes_the_other_prompts_answer_along(http):
    paris, rome = token(http, " Paris"), token(http, " Rome")
    logprobs = {"at": "lm_head", "pos": "last", "unit": [paris, rome]}
    runs = {
        "clean": {"input": PARIS, "read": {"out": logprobs}},
        "other": {"input": ROME, "read": {"out": logprobs}},
    }
    for layer in (2, 28):
        write = [{"at": f"resid_post.{layer}", "pos": "last", "op": "swap", "value": {"run": "clean"}}]
        runs[f"patched{layer}"] = {"input": ROME, "read": {"out": logprobs}, "write": write}
    found = arrays(http, runs, [f"{run}.out" for run in runs])
    preference = {run: float(found[f"{run}.out"][0, 0] - found[f"{run}.out"][0, 1]) for run in runs}
    assert preference["clean"] > 0 > preference["other"]
    assert preference["patched28"] > 0
    # Early on, the last position does not know the place yet.
    assert preference["patched2"] < 0


def test_a_sweep_of_every_layer_and_position_finds_where_the_place_is_held(http):
    paris, rome = token(http, " Paris"), token(http, " Rome")
    corrupt = "The Colosseum Tower is in the city of"
    logits = {"at": "lm_head", "pos": "last", "unit": [paris, rome]}
    write = [{"at": "resid_post.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}}]
    prompts = [http.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in (PARIS, corrupt)]
    length = min(map(len, prompts))
    clean, changed = (prompt[-length:] for prompt in prompts)
    runs = {
        "clean": {"input": {"token_ids": clean}, "read": {"out": logits}},
        "corrupt": {"input": {"token_ids": changed}, "read": {"out": logits}},
        "patched": {"input": {"token_ids": changed}, "read": {"out": logits}, "write": write},
    }
    found = arrays(
        http, runs, ["clean.out", "corrupt.out", "patched.out"], sweep={"layer": "all", "pos": "all"}
    )
    assert found["patched.out"].shape == (30, length, 1, 2)
    heat = found["patched.out"][..., 0, 0] - found["patched.out"][..., 0, 1]
    # At the last layer only the last position tells, and it tells what the clean run says.
    assert heat[-1, -1] == float(found["clean.out"][0, 0] - found["clean.out"][0, 1])
    assert len(set(heat[-1, :-1].tolist())) == 1
    assert heat[-1, 0] == float(found["corrupt.out"][0, 0] - found["corrupt.out"][0, 1])
    # What goes in is the same up to where the prompts differ.
    first = next(i for i, (a, b) in enumerate(zip(clean, changed, strict=True)) if a != b)
    assert (heat[:, :first] == heat[-1, 0]).all()
    assert heat[0, first:-1].max() > heat[-1, 0]


def test_attention_rows_sum_to_one_and_see_nothing_ahead(http):
    found = arrays(
        http, {"a": {"input": PARIS, "read": {"p": {"at": "blocks.7.attn.hook_pattern"}}}}, ["a.p"]
    )
    pattern = found["a.p"].transpose(1, 0, 2)
    assert np.allclose(pattern.sum(-1), 1, atol=1e-5)
    assert not np.triu(pattern, 1).any()


def test_to_write_back_what_was_there_changes_no_bit(http):
    write = [{"at": "resid_post.11", "op": "swap", "value": {"run": "a"}}]
    read = {"x": {"at": "resid_post.29"}}
    runs = {"a": {"input": PARIS, "read": read}, "b": {"input": PARIS, "read": read, "write": write}}
    found = arrays(http, runs, ["a.x", "b.x"])
    np.testing.assert_array_equal(found["a.x"], found["b.x"])


def generated(http):
    body = {"model": MODEL, "prompt": PARIS, "max_tokens": 40, "seed": 3, "logprobs": 2, "ignore_eos": True}
    choice = http.post("/v1/completions", json=body).json()["choices"][0]
    return choice["text"], choice["logprobs"]


def storm(http, number):
    """A plan whose runs read, write, generate and need each other."""
    write = [
        {"at": f"mlp_act.{number % 30}", "op": "noise", "scale": 3.0},
        {"at": f"attn_probs.{(number + 9) % 30}", "head": [number % 9], "op": "zero"},
        {"at": f"resid_mid.{(number + 4) % 30}", "pos": 3, "op": "swap", "value": {"run": "a"}},
    ]
    runs = {
        "a": {"input": SALAD, "read": {"all": {"at": "resid_post.*"}}},
        "b": {
            "input": PARIS,
            "write": write,
            "generate": {"max_tokens": 6},
            "read": {"x": lens("resid_post.*")},
        },
    }
    return arrays(http, runs, ["a.all", "b.x", "b.tokens"], seed=number)


def test_a_storm_of_plans_disturbs_nobody_and_no_plan_disturbs_another(http):
    before, alone = generated(http), storm(http, 5)
    with ThreadPoolExecutor(8) as pool:
        plans = [pool.submit(storm, http, number) for number in (1, 5, 2, 5, 7, 5)]
        beside = [pool.submit(generated, http) for _ in range(2)]
        assert [each.result() for each in beside] == [before, before]
        again = [each.result() for each in plans]
    for place in (1, 3, 5):
        for name, values in alone.items():
            np.testing.assert_array_equal(again[place][name], values)
    assert generated(http) == before


def test_a_plan_outlives_its_engine_and_its_record_replays(http, server):
    runs = {
        "a": {
            "input": {"messages": [{"role": "user", "content": "Name a city."}]},
            "generate": {"max_tokens": 60, "temperature": 1.0, "ignore_eos": True},
            "read": {"x": {"at": "resid_post.3", "pos": {"phase": "generated"}}, "y": lens("resid_post.*")},
        }
    }
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(trace, http, runs, ["a.x", "a.tokens", "a.y"], seed=11, format="json")
        os.kill(server.engine, signal.SIGKILL)
        response = asked.result()
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["tensors"]["a.x"]["shape"] == [59, 576]
    assert body["points"] == {"a.x": "resid_post.3", "a.y": "resid_post.*"}
    record = http.get(f"/v1/records/{body['id']}").json()
    told = {name: f"sha256:{digest}" for name, *_, digest in _manifest(record)}
    assert told == {name: f"sha256:{tensor['sha256']}" for name, tensor in body["tensors"].items()}
    report = http.post(f"/v1/records/{body['id']}/replay").json()
    assert (report["level"], report["tokens"]) == ("EXACT", 60)


def _manifest(record):
    entries = json.loads(record["openings"]["tensors"]["json"])
    return [[*entry[:-1], entry[-1].removeprefix("sha256:")] for entry in entries]


def test_whoever_lacks_the_scope_is_told_which(server):
    read = {"a": {"input": PARIS, "read": {"x": {"at": "resid_post.3"}}}}
    body = {"model": MODEL, "runs": read, "return": ["a.x"]}
    # The anonymous tier has what is open to all.
    refused = httpx2.post(f"{server.url}/v1/traces", json=body, timeout=60)
    assert refused.status_code == 403
    assert "internals:read" in refused.json()["error"]["message"]


def test_nothing_is_left_in_the_spool(server, http):
    storm(http, 1)
    # It is deleted once it was sent, which is a moment after it was received.
    deadline = time.monotonic() + 30
    while list((server.home / "spool").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


PAGE = ROOT / "docs" / "howto" / "look-inside.md"


def plans_of_the_page():
    return [json.loads(block.text) for block in blocks(PAGE) if block.language == "json"]


def test_the_program_of_the_page_works_as_it_stands(server, key, monkeypatch, capsys):
    monkeypatch.setenv("TRANSOM_BASE_URL", server.url)
    monkeypatch.setenv("TRANSOM_API_KEY", key)
    program, *_ = [block for block in blocks(PAGE) if block.language == "python"]
    exec(compile(program.text, program.name, "exec"), {})
    shape, *layers, record = capsys.readouterr().out.splitlines()
    assert shape == "('layer', 'pos', 'rank') (30, 1, 3)"
    assert layers[-1] == "29  Paris"
    assert record.endswith(" EXACT")


# What the page on plans says of each refusal.
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("unknown_parameter", {"run": {}}),
        ("missing_parameter", {"return": None}),
        ("invalid_value", {"runs": {"a": {"input": PARIS, "read": {"x": {"at": "resid_post.99"}}}}}),
        ("invalid_value", {"runs": {"a": {"input": PARIS, "read": {"x": {"at": "resid_pots.3"}}}}}),
        (
            "unknown_artifact",
            {"derive": {"d": {"add": ["a.x", "artifact:" + "0" * 64]}}, "return": ["derive.d"]},
        ),
        (
            "context_length_exceeded",
            {"runs": {"a": {"input": PARIS, "generate": {"max_tokens": 9000}, "read": {"x": {"at": "z.0"}}}}},
        ),
        (
            "plan_too_large",
            {"runs": {"a": {"input": PARIS * 800, "read": {"x": {"at": "mlp_act.*"}}}}},
        ),
        (
            "plan_failed",
            {
                "runs": {
                    "a": {
                        "input": PARIS,
                        "write": [{"at": "resid_mid.3", "op": "set", "value": 1e20}],
                        "read": {"x": {"at": "resid_post.3"}},
                    }
                }
            },
        ),
    ],
)
def test_a_refusal_has_the_code_that_the_page_on_plans_says(http, code, change):
    plan = {"model": MODEL, "runs": {"a": {"input": PARIS, "read": {"x": {"at": "resid_post.3"}}}}}
    response = http.post("/v1/traces", json=plan | {"return": ["a.x"]} | change)
    assert (response.status_code, response.json()["error"]["code"]) == (400, code), response.text
    assert f"| `{code}` | 400 |" in (ROOT / "docs" / "reference" / "plans.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("plan", plans_of_the_page(), ids=lambda plan: plan["return"][0])
def test_the_plans_of_the_page_work_as_they_stand(http, plan):
    response = http.post("/v1/traces", json=plan)
    assert response.status_code == 200, response.text
    if plan.get("format") == "json":
        assert response.json()["generated"]["steered"]["text"]
        return
    found = load(response.content)
    assert found
    if "pattern" in plan["return"][0]:
        pattern = found["clean.pattern"]
        assert pattern.shape[:2] == (1, 9)
        np.testing.assert_allclose(pattern.sum(axis=-1), 1, rtol=1e-5)
    if "sweep" in plan:
        assert found["patched.logits"].shape == (30, 8, 1, 2)
        # With all of the last layer's last position taken over, the answer is the clean run's.
        assert len(set(found["patched.logits"][-1, :-1, 0, 0].tolist())) == 1


def test_points_say_what_can_be_done_where(http):
    page = http.get("/v1/points", params={"model": MODEL}).json()
    points = {point["name"]: point for point in page["data"]}
    assert points["resid_post"]["layers"] == list(range(30))
    assert (points["q"]["heads"], points["k"]["heads"], points["z"]["width"]) == (9, 3, 64)
    assert (points["k_rot"]["readable"], points["k_rot"]["writable"]) == (True, False)
    assert (points["resid_mid"]["writable"], points["resid_mid"]["differentiable"]) == (True, False)
    assert points["lm_head"]["width"] == 49152
    assert points["attn_probs"]["width"] is None


def test_attribution_predicts_what_patching_finds(http):
    """Nanda 2023: gradient times difference is a first-order guess of each patch's effect."""
    clean = [504, 412, 3241, 4082, 46, 11437, 314, 281]
    corrupt = [*clean[:5], 999, *clean[6:]]
    tokens = [7042, 7268]
    grad = {
        "of": {"logit_diff": tokens},
        "wrt": {"effect": {"at": "mlp_out.*"}},
        "mode": {"grad_x_delta": "clean"},
    }
    logits = {"read": {"out": {"at": "lm_head", "pos": "last", "unit": tokens}}}
    write = [{"at": "mlp_out.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}}]
    runs = {
        "clean": {"input": {"token_ids": clean}},
        "corrupt": {"input": {"token_ids": corrupt}, "grad": grad, **logits},
        "patched": {"input": {"token_ids": corrupt}, "write": write, **logits},
    }
    returns = ["corrupt.effect", "corrupt.out", "patched.out"]
    found = arrays(http, runs, returns, sweep={"layer": "all", "pos": "all"})
    guessed = found["corrupt.effect"].sum(-1)
    patched, unpatched = (found[name][..., 0, 0] - found[name][..., 0, 1] for name in returns[:0:-1])
    measured = patched - unpatched
    assert guessed.shape == measured.shape == (30, 8)
    # Before the prompts differ nothing changes, in either; the guess is of the plain modules, which round
    # otherwise.
    assert np.abs(guessed[:, :5]).max() < 1e-4
    assert not measured[:, :5].any()
    assert np.corrcoef(guessed[5:, 5:].ravel(), measured[5:, 5:].ravel())[0, 1] > 0.7


def test_the_client_and_the_commands_see_the_same(server, key, tmp_path):
    plan = {
        "runs": {"a": {"input": PARIS, "read": {"x": {"at": "resid_post.*", "pos": -1}}}},
        "return": ["a.x"],
    }
    with Client(server.url, key) as client:
        found = client.trace(plan)
        assert found["a.x"].axes == ("layer", "pos", "unit")
        assert client.replay(found.record).level == "EXACT"
        names = [point.name for point in client.points().data]
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"model": MODEL}))
    kept = tmp_path / "result.safetensors"
    told = as_researcher(server, key, "trace", str(tmp_path / "plan.json"), "--out", str(kept))
    assert "30 x 1 x 576" in told
    np.testing.assert_array_equal(load(kept.read_bytes())["a.x"], found["a.x"].data)
    told = as_researcher(server, key, "points", MODEL)
    assert [line.split()[0] for line in told.splitlines() if line.split()[0] in names] == names


def as_researcher(server, key, *arguments):
    environment = server.environment | {"TRANSOM_BASE_URL": server.url, "TRANSOM_API_KEY": key}
    done = subprocess.run([TRANSOM, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
