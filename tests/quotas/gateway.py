"""What the tests of quotas share: clocks that are moved, gateways, and questions to the tables."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from tests.quotas.naive import NaiveQuotas
from transom.access.quotas import Charged, Limit, Quotas
from transom.access.quotas.counters import Count
from transom.storage.tables import quota_counters, quota_gateways, quota_leases, quota_ledger

ROOT = Path(__file__).resolve().parent.parent.parent
NOON = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)
KINDS = {"real": Quotas, "naive": NaiveQuotas}
EVERYBODY = Charged(key_id="k1", person_id="per_1", project_id="prj_1", tier="open", model="tiny")


@dataclass
class Time:
    """A clock and its monotonic seconds, moved by hand; they move together unless the clock is set."""

    now: datetime = NOON
    seconds: float = 1000.0

    def clock(self):
        return self.now

    def ticks(self):
        return self.seconds

    def pass_(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


@dataclass
class Bench:
    """A database with a clock, on which gateways are opened."""

    database: object
    url: str
    kind: str = "real"
    time: Time = field(default_factory=Time)

    def gateway(self, **options):
        return KINDS[self.kind](self.database, clock=self.time.clock, **{"ticks": self.time.ticks, **options})

    def count(self, limit):
        """The counter of a limit now: what is used and held."""
        start = limit.of.window_start(_us(self.time.now))
        return self.count_in(limit, start)

    def count_in(self, limit, start):
        c = quota_counters.c
        query = select(c.used, c.held).where(
            c.account == limit.account, c.budget == limit.budget, c.window_start == start
        )
        row = self.database.read_sync(lambda connection: connection.execute(query).one_or_none())
        return Count(*row) if row else Count(0, 0)

    def ledger(self):
        """Rows of the ledger, oldest first."""
        query = select(quota_ledger).order_by(quota_ledger.c.closed, quota_ledger.c.request_id)
        return self.database.read_sync(lambda connection: connection.execute(query).all())

    def held(self):
        """Everything that is held: in counters, in leases, and the number of gateways."""
        sums = [
            func.sum(quota_counters.c.held),
            func.sum(quota_leases.c.amount),
            func.count(quota_gateways.c.id),
        ]
        return self.database.read_sync(
            lambda connection: tuple(int(connection.execute(select(each)).scalar() or 0) for each in sums)
        )


def _us(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def limits(**by_name):
    """`limits(project__tokens_total=5)`: limits on the accounts of `EVERYBODY`, as a tuple: what follows from
    one is remembered.
    """
    names = {kind.partition(":")[0]: kind for kind in EVERYBODY.accounts()}
    return tuple(
        Limit(names[kind], budget, limit)
        for kind, budget, limit in ((*name.split("__"), limit) for name, limit in by_name.items())
    )


@contextmanager
def workers(processes, /, **orders):
    """Gateways in processes of their own, which wait for `go`."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.quotas.worker", json.dumps({**orders, "name": f"w{index}"})],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        for worker in started:
            assert worker.stdout.readline() == "ready\n"
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()


def go(started):
    for worker in started:
        worker.stdin.write("go\n")
        worker.stdin.flush()


def reports(started):
    """What the workers did."""
    return [json.loads(worker.stdout.readline()) for worker in started]
