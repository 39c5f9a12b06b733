"""P1, P3 and P7 together: a state machine drives two gateways on one database beside a sequential oracle."""

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.quotas.conftest import opened
from tests.quotas.gateway import EVERYBODY, Bench, limits
from tests.quotas.oracle import Oracle
from transom.access.quotas import Amounts, ledger, reconcile
from transom.access.quotas.accounts import Cell
from transom.errors import QuotaExceeded

LIMITS = {
    "key__requests_per_minute": st.sampled_from([3, 12]),
    "project__tokens_per_minute": st.sampled_from([40, 80, 1000]),
    "project__tokens_total": st.sampled_from([100, 300, 9000]),
    "model__tokens_per_day": st.sampled_from([60, 200]),
    "person__requests_in_flight": st.sampled_from([2, 4]),
}
ANY = st.fixed_dictionaries({}, optional=LIMITS)
# A lease that was given before does not see what requests without its limit use.
ALL = st.fixed_dictionaries(LIMITS)


class Machine(RuleBasedStateMachine):
    kind = "real"
    exact = True
    """Whether gateways give back what they hold unused before each request, so that SQL decides it."""

    running = Bundle("running")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{Path(self.folder.name)}/transom.db"
        self.bench = Bench(opened(url), url, kind=self.kind)
        self.gateways = [self.bench.gateway(ttl=timedelta(days=400)) for _ in range(2)]
        self.oracle = Oracle()
        self.number = 0

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def teardown(self):
        for gateway in self.gateways:
            self.run(gateway.close())
        if self.kind == "real":
            assert self.bench.held() == (0, 0, 0)
        self.bench.database.close()
        self.runner.close()
        self.folder.cleanup()

    @rule(
        target=running,
        which=st.integers(0, 1),
        data=st.data(),
        tokens=st.integers(0, 60),
    )
    def reserve(self, which, data, tokens):
        self.number += 1
        bound, demand = limits(**data.draw(ANY if self.exact else ALL)), Amounts(tokens=tokens)
        if self.exact:
            for gateway in (*self.gateways, *self.gateways):
                self.run(gateway.sweep())
        fits = self.oracle.reserve(self.number, bound, demand)
        try:
            made = self.run(self.gateways[which].reserve(f"r{self.number}", EVERYBODY, bound, demand))
        except QuotaExceeded:
            assert not (fits and self.exact)
            if fits:
                self.oracle.release(self.number)
            return None
        assert fits
        return self.number, made

    @rule(held=consumes(running), tokens=st.integers(0, 70))
    def settle(self, held, tokens):
        if held is not None:
            self.oracle.settle(held[0], Amounts(tokens=tokens))
            self.run(held[1].settle(Amounts(tokens=tokens)))

    @rule(held=consumes(running))
    def release(self, held):
        if held is not None:
            self.oracle.release(held[0])
            self.run(held[1].release())

    @rule(seconds=st.sampled_from([0.000001, 1, 59, 60, 86_399]))
    def time_passes(self, seconds):
        self.bench.time.pass_(seconds)
        self.oracle.now = self.bench.time.now

    @rule(which=st.integers(0, 1))
    def sweep(self, which):
        self.run(self.gateways[which].sweep())

    @rule()
    def lose_the_cache(self):
        self.bench.database.write_sync(reconcile.drop)

    @invariant()
    def counters_are_ledger_and_leases(self):
        assert self.bench.database.read_sync(reconcile.check) == []

    @invariant()
    def the_ledger_is_what_the_oracle_counted(self):
        cells = [Cell(*cell) for cell in self.oracle.used]
        used = self.bench.database.read_sync(lambda c: [ledger.used(c, cell) for cell in cells])
        assert used == list(self.oracle.used.values())


def run(machine, examples):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_two_gateways_decide_as_the_oracle_does():
    run(Machine, 25)


def test_with_idle_leases_they_never_let_more_through():
    class Loose(Machine):
        exact = False

    run(Loose, 15)


def test_reading_and_then_writing_does_not():
    class Naive(Machine):
        kind = "naive"

    with pytest.raises(AssertionError):
        run(Naive, 15)
