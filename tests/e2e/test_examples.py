"""The examples show what they say they show, on the real model."""

from __future__ import annotations

import re
import runpy

import pytest

from tests.documents import ROOT

pytestmark = pytest.mark.e2e

FOLDER = ROOT / "examples" / "inside"

NUMBER = r"-?\d+(?:\.\d+)?"


@pytest.fixture
def run(server, key, monkeypatch, capsys):
    """Runs an example as a program; what it prints."""
    monkeypatch.setenv("TRANSOM_BASE_URL", server.url)
    monkeypatch.setenv("TRANSOM_API_KEY", key)

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(pattern, text):
    """The numbers in each place of a text that a pattern has groups for."""
    found = [tuple(map(float, re.findall(NUMBER, each[0]))) for each in re.finditer(pattern, text)]
    assert found, f"{pattern} is not in:\n{text}"
    return found


def test_every_example_is_short_tested_and_names_its_source():
    examples = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert len(examples) == 10
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(examples) <= tested
    for path in FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60
        assert re.search(r"arXiv \d{4}\.\d{5}", text)


def test_logit_lens(run):
    ((layer, of),) = numbers(r"is the likeliest token from layer \d+ of \d+ on", run("logit_lens"))
    assert of == 30
    assert 20 <= layer < 30


def test_induction_heads(run):
    said = run("induction_heads")
    ((usual, best),) = numbers(r"pay it less than [\d.]+; the best pays [\d.]+\d", said)
    assert usual < 0.05
    assert best > 0.7
    ((first, second),) = numbers(r"costs [\d.]+ nats the first time and [\d.]+ the second", said)
    assert second < first / 2


def test_attention_sinks(run):
    said = run("attention_sinks")
    shares = numbers(r"gets [\d.]+ of all attention, the token after it [\d.]+\d", said)
    assert len(shares) == 3
    for sink, other in shares:
        assert sink > 0.3
        assert other < 0.1


def test_massive_activations(run):
    said = run("massive_activations")
    (one, other) = numbers(r"layer \d+, position \d+, unit \d+: \d+ times", said)
    assert one[:3] == other[:3]
    assert one[1] == 0
    assert min(one[3], other[3]) > 1000
    costs = {name: numbers(rf"{name} +[\d.]+ nats", said)[0][0] for name in ("plain", "other", "broken")}
    assert costs["broken"] > costs["plain"] + 3
    assert abs(costs["other"] - costs["plain"]) < 0.2


def test_indirect_object(run, tmp_path):
    said = run("indirect_object", tmp_path / "heat.html")
    ((clean, corrupt),) = numbers(r"clean [-\d.]+, corrupt [-\d.]+\d", said)
    assert clean > 2
    assert corrupt < -2
    restored = numbers(r"restores +[-\d.]+, ' to' +[-\d.]+", said)
    assert restored[0] == pytest.approx((1, 0), abs=0.1)
    assert restored[-1] == pytest.approx((0, 1), abs=0.1)
    ((crossing,),) = numbers(r"From layer \d+ on", said)
    assert 15 < crossing < 28
    ((layer, part, total),) = numbers(r"attn_\d+ alone adds [\d.]+ to the [\d.]+\d", said)
    assert layer == crossing
    assert part > total / 2
    assert "Restored logit difference" in (tmp_path / "heat.html").read_text(encoding="utf-8")


def test_greater_than(run):
    said = run("greater_than")
    ((right, wrong),) = numbers(r"[\d.]+ of the probability is not smaller, [\d.]+\d is", said)
    assert right > 0.95
    assert wrong < 0.05
    ((*_, before, after),) = numbers(r"7 or more goes from [\d.]+ to [\d.]+\d", said)
    assert before < 0.3
    assert after > 0.9


def test_steering(run):
    said = run("steering")
    (sad,), (plain,), (glad,) = numbers(r"' bad' +[-\d.]+\d", said)
    assert sad < 0 < plain < glad
    assert len(set(re.findall(r"\d(['\"].+)", said))) == 3


def test_refusal_direction(run):
    (before, after) = numbers(r"sorry to \d+ of \d+ such requests, to \d+ of \d+", run("refusal_direction"))
    assert before == (4, 4, 0, 2)
    assert after[0] == 0


def test_linear_probe(run):
    ((chance, layer, best),) = numbers(
        r"From the embedding \d+%; from layer \d+ on never below \d+%", run("linear_probe")
    )
    assert chance == 50
    assert layer < 20
    assert best >= 95


def test_attribution(run):
    attention, mlp = numbers(r"correlation -?[\d.]+\d", run("attribution"))
    assert attention[0] > 0.8
    assert mlp[0] > 0.6
