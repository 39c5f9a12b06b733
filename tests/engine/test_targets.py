"""An engine that is held to a level of x86-64: what it may use, and that float32 has the same bits there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import get_args

import pytest

from tests.engine.drive import ask, load_tiny, run
from transom.backends import engine_process
from transom.config import Settings
from transom.engine.kernels import compile as compiling
from transom.engine.kernels import target
from transom.engine.messages import EngineOptions
from transom.engine.processor import HOST, PROCESSORS, environment, lacking
from transom.errors import ModelRefused

LESS = "x86-64-v3"


def test_the_setting_offers_what_there_is():
    assert get_args(Settings.model_fields["processor"].annotation) == PROCESSORS


def test_an_engine_is_started_for_its_processor(monkeypatch):
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    held = engine_process._environment(EngineOptions(root="", processor=LESS))
    assert held["NUMBA_CPU_NAME"] == LESS
    assert (held["ATEN_CPU_CAPABILITY"], held["MKL_ENABLE_INSTRUCTIONS"]) == ("avx2", "AVX2")
    assert not [name for name in held["NUMBA_CPU_FEATURES"].split(",") if "512" in name or "amx" in name]
    assert "+avx512vl" in environment("x86-64-v4")["NUMBA_CPU_FEATURES"].split(",")
    assert "NUMBA_CPU_NAME" not in engine_process._environment(EngineOptions(root=""))


def test_what_a_machine_lacks_is_named(tiny_root, monkeypatch):
    assert list(lacking(HOST, {})) == []
    assert list(lacking("x86-64-v4", target.HOST | {"avx512vl": False}))[-1] == "avx512vl"
    monkeypatch.setattr(target, "HOST", dict.fromkeys(target.HOST, True) | {"avx512bw": False})
    with pytest.raises(ModelRefused, match="no x86-64-v4: it lacks avx512bw"):
        load_tiny(tiny_root("llama"), processor="x86-64-v4")


def answers(root, **options) -> dict[str, object]:
    """What a tiny model answers, each number to its last bit, and by what it says that it was computed."""
    loaded = load_tiny(root, **options)
    asked = [
        ask(str(n), range(3, 40 + n), temperature=1.0, seed=n, logprobs=3, max_tokens=24) for n in range(5)
    ]
    results = run(loaded.engine, asked)
    tokens = [(token.token_id, token.logprob) for result in results.values() for token in result.tokens]
    return {"profile": loaded.profile, "tokens": [[each, number.hex()] for each, number in tokens]}


ELSEWHERE = """
import json, sys
from pathlib import Path
from tests.engine.test_targets import answers
root, processor = Path(sys.argv[1]), sys.argv[2]
print(json.dumps(answers(root, processor=processor)))
"""


def test_code_for_one_processor_is_not_kept_beside_that_for_another(monkeypatch):
    here = compiling._cache_folder()
    monkeypatch.setattr(compiling.target, "describe", lambda: "another")
    assert compiling._cache_folder() != here


@pytest.mark.timeout(900)  # all kernels are compiled once more
@pytest.mark.skipif(not target.HOST.get("avx512f"), reason="this machine has no AVX-512 to do without")
def test_float32_has_the_same_bits_without_avx_512(tiny_root):
    root = tiny_root("llama")
    command = [sys.executable, "-c", ELSEWHERE, str(root), LESS]
    done = subprocess.run(
        command, env=os.environ | environment(LESS), capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    elsewhere = json.loads(done.stdout)
    here = answers(root)
    assert elsewhere["tokens"] == here["tokens"]
    assert len({number for _, number in here["tokens"]}) > 20
    # It says what it was: a replay on this machine as it is, is one of another profile.
    assert elsewhere["profile"]["cpu_capability"] == "AVX2"
    assert elsewhere["profile"]["cpu_features"] != here["profile"]["cpu_features"]
