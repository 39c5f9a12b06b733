"""The benchmark of the log, on a small one."""

from __future__ import annotations

import pytest

from benchmarks import log
from benchmarks.load.rows import Row
from benchmarks.load.words import SHOWN
from tests.unit.benchmarks.test_results import documented


@pytest.mark.parametrize("command", documented("benchmarks/log.py"))
def test_a_documented_command_can_be_read(command):
    assert log._parse(command).tamper == 1000


def test_a_small_log_is_measured_read_by_others_and_tampered_with(tmp_path, monkeypatch, capfd):
    kept: list[Row] = []
    monkeypatch.setattr(log, "append", lambda rows, _folder: kept.extend(rows))
    small = {"sizes": 600, "growths": 50, "inclusions": 20, "consistencies": 10, "others": 5, "tamper": 16}
    small |= {"tampered-size": 300}
    arguments = [each for name, value in small.items() for each in (f"--{name}", str(value))]
    assert log.main([*arguments, "--folder", str(tmp_path), "--keep"]) == 0
    assert "tlog_scales: accepted 3 signatures" in capfd.readouterr().out
    measured, tampered = kept
    assert set(SHOWN["log"]) <= measured.rounds[0].keys()
    assert measured.rounds[0]["inclusion_hashes"] <= 10
    assert (tampered.rounds[0]["changed"], tampered.rounds[0]["unnoticed"]) == (16, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_others_do_not_accept_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(
        log.GrownLog, "some_proofs", lambda _log, _times: {"inclusion": [[0, []]], "consistency": []}
    )
    arguments = [
        "--sizes",
        "300",
        "--growths",
        "50",
        "--inclusions",
        "1",
        "--consistencies",
        "1",
        "--tamper",
        "0",
    ]
    assert log.main([*arguments, "--tampered-size", "10", "--folder", str(tmp_path)]) == 1
