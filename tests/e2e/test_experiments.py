"""Twelve experiments inside the real model: over HTTP as by plain PyTorch, and alone as in traffic."""

from __future__ import annotations

import pytest

from benchmarks.equality.asking import COMPANY, Server
from benchmarks.equality.experiment import LIMIT
from benchmarks.equality.outcome import measure
from benchmarks.equality.plain import Plain
from benchmarks.equality.words import EXPERIMENTS
from tests.conftest import REAL_MODEL

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def outcomes(server, key, home):
    with Server(server.url, key, REAL_MODEL) as asked:
        found = measure(asked, Plain(home / "models" / REAL_MODEL))
    return {outcome.key: outcome for outcome in found}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_gives_what_plain_pytorch_gives(outcomes, name):
    difference = outcomes[name].difference
    assert difference.numbers > 0
    assert difference.scaled <= LIMIT
    assert difference.absolute <= LIMIT


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_gives_the_same_bytes_alone_and_in_traffic(outcomes, name):
    assert outcomes[name].is_same
    assert outcomes[name].company >= COMPANY
