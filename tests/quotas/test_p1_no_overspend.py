"""P1. U + H ≤ L at every instant, however many ask at once, and no more is settled than was reserved."""

import threading
import time

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from tests.quotas.gateway import EVERYBODY, NOON, go, limits, reports, workers
from transom.access.quotas import Amounts, reconcile
from transom.errors import QuotaExceeded
from transom.storage.tables import quota_counters

pytestmark = pytest.mark.anyio


def rush(bench, limit, seconds):
    """256 requests at once, from four processes; what they did, and the most that was ever used and held."""
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.01):
            peak[0] = max(peak[0], sum(bench.count(limit)))

    orders = {
        "mode": "rush",
        "kind": bench.kind,
        "url": bench.url,
        "now": NOON.isoformat(),
        "charged": EVERYBODY.columns(),
        "limits": [[limit.account, limit.budget, limit.limit]],
        "count": 64,
        "seconds": seconds,
    }
    with workers(4, **orders) as started:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            go(started)
            done = reports(started)
        finally:
            over.set()
            watcher.join()
    return done, peak[0]


def no_overspend(bench, seconds):
    [limit] = limits(project__tokens_total=1000)  # 100 requests
    done, peak = rush(bench, limit, seconds)
    assert sum(report["settled"] for report in done) <= 100
    assert peak <= 1000
    assert bench.count(limit) == (1000, 0)
    assert sum(row.tokens for row in bench.ledger()) == 1000
    return done


def test_256_requests_from_four_processes_against_a_limit_for_100(bench):
    done = no_overspend(bench, seconds=4)
    # And they get all of it: what one gateway leaves, another finds.
    assert sum(report["settled"] for report in done) == 100
    assert sum(report["unavailable"] for report in done) == 0
    assert bench.held() == (0, 0, 0)
    assert bench.database.read_sync(reconcile.check) == []


def test_reading_and_then_writing_lets_more_through(naive):
    with pytest.raises(AssertionError):
        no_overspend(naive, seconds=0)


async def test_never_more_than_the_limit_in_flight(bench):
    [limit] = limits(key__requests_in_flight=3)
    gateways = [bench.gateway() for _ in range(3)]
    held = [
        await gateway.reserve(f"r{index}", EVERYBODY, [limit], Amounts())
        for index, gateway in enumerate(gateways)
    ]
    for gateway in gateways:
        with pytest.raises(QuotaExceeded):
            await gateway.reserve("more", EVERYBODY, [limit], Amounts())
    await held[0].settle(Amounts())
    await gateways[0].reserve("again", EVERYBODY, [limit], Amounts())
    assert bench.count(limit) == (0, 3)


async def test_more_than_was_reserved_is_charged_no_further_and_says_so(bench):
    [limit] = bound = limits(project__tokens_total=100)
    gateway = bench.gateway()
    reservation = await gateway.reserve("greedy", EVERYBODY, bound, Amounts(tokens=60))
    await reservation.settle(Amounts(tokens=75))
    assert bench.count(limit).used == 60
    [row] = bench.ledger()
    assert (row.tokens, row.short, row.outcome) == (60, True, "settled")


def test_the_schema_itself_refuses_more_than_the_ceiling(bench):
    row = {"account": "key:k", "budget": "tokens_total", "window_start": 0, "ceiling": 10}
    for used, held in ((11, 0), (6, 5), (-1, 0), (0, -1)):
        with pytest.raises(IntegrityError):
            bench.database.write_sync(
                lambda c, used=used, held=held: (
                    c.execute(insert(quota_counters), {**row, "used": used, "held": held}) and None
                )
            )


def test_a_rush_does_not_take_long(embedded):
    began = time.monotonic()
    [limit] = limits(project__tokens_total=10_000)
    done, _ = rush(embedded, limit, seconds=4)
    assert sum(report["settled"] for report in done) == 256
    assert sum(report["refused"] for report in done) == 0
    assert time.monotonic() - began < 60
