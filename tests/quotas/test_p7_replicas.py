"""P7. Gateways are one, whatever their number and database; without the store they let nothing through."""

import random
import time
from datetime import timedelta

import pytest

from tests import postgres
from tests.quotas.conftest import opened
from tests.quotas.gateway import EVERYBODY, NOON, Bench, go, limits, reports, workers
from tests.quotas.oracle import Oracle
from transom.access.quotas import Amounts, Limit, reconcile
from transom.errors import QuotaExceeded, QuotaUnavailable

pytestmark = pytest.mark.anyio

BUDGETS = {
    "requests_per_minute": (4, 9),
    "tokens_per_minute": (60, 200),
    "tokens_per_day": (300, 900),
    "requests_in_flight": (2, 4),
    "tokens_total": (900, 2000),
    "engine_seconds": (5, 30),
}


def schedule(seed, steps):
    """A recorded history: what was asked, in one order, with every choice made beforehand."""
    chance = random.Random(seed)
    accounts = EVERYBODY.accounts()
    every = [(account, budget) for account in accounts for budget in BUDGETS]
    bound = {each: Limit(*each, chance.choice(BUDGETS[each[1]])) for each in chance.sample(every, 9)}
    for _ in range(steps):
        kind = chance.choice(
            ("reserve", "reserve", "reserve", "settle", "settle", "release", "time", "limit")
        )
        if kind == "limit":
            each = chance.choice(list(bound))
            bound[each] = Limit(*each, chance.choice(BUDGETS[each[1]]))
        elif kind == "reserve":
            demand = Amounts(tokens=chance.choice((1, 10, 50)), engine_us=chance.choice((0, 700_000)))
            yield "reserve", chance.randrange(3), tuple(bound.values()), demand
        elif kind == "settle":
            yield "settle", chance.random(), chance.randrange(60), 0
        elif kind == "release":
            yield "release", chance.random(), 0, 0
        else:
            yield "time", chance.choice((0.4, 3, 17, 61, 40_000)), 0, 0


async def decisions(bench, steps, count=3):
    """What a schedule of requests at several gateways comes to; what they hold unused is given back first."""
    oracle = Oracle()
    gateways = [bench.gateway(ttl=timedelta(days=40)) for _ in range(count)]
    running, verdicts = [], []
    for number, (kind, choice, bound, demand) in enumerate(steps):
        if kind == "time":
            bench.time.pass_(choice)
            oracle.now = bench.time.now
        elif kind == "reserve":
            gateway = gateways[choice % count]
            for other in gateways:
                if other is not gateway:
                    await other.sweep()
                    await other.sweep()
            expected = oracle.reserve(number, bound, demand)
            try:
                running.append((number, await gateway.reserve(f"r{number}", EVERYBODY, bound, demand)))
                verdicts.append("admitted")
            except QuotaExceeded as error:
                verdicts.append((error.reason, error.retry_after, error.message))
            assert (verdicts[-1] == "admitted") == expected, (number, verdicts[-1])
        elif running:
            index, reservation = running.pop(int(choice * len(running)))
            if kind == "settle":
                used = Amounts(tokens=bound, engine_us=900 * bound)
                oracle.settle(index, used)
                await reservation.settle(used)
            else:
                oracle.release(index)
                await reservation.release()
    for gateway in gateways:
        await gateway.close()
    return verdicts


async def test_one_recorded_schedule_is_decided_alike_by_both_databases_and_an_oracle(
    embedded, postgres_cluster
):
    url = postgres_cluster.create()
    database = opened(url)
    here = await decisions(embedded, schedule(26, 400))
    there = await decisions(Bench(database, url), schedule(26, 400))
    database.close()
    assert here == there
    kinds = {verdict if isinstance(verdict, str) else verdict[0] for verdict in here}
    assert kinds == {"admitted", "rate_limit_exceeded", "insufficient_quota"}


async def test_one_gateway_decides_as_three_do(tmp_path):
    found = []
    for count in (1, 3):
        url = f"sqlite:///{tmp_path}/{count}.db"
        database = opened(url)
        found.append(await decisions(Bench(database, url), schedule(5, 150), count))
        database.close()
    assert found[0] == found[1]


async def test_read_and_write_decide_otherwise(naive):
    with pytest.raises(AssertionError):
        await decisions(naive, schedule(26, 400))


async def closed_without_its_store(bench):
    bound = limits(project__tokens_total=1000)
    gateway = bench.gateway()
    await (await gateway.reserve("before", EVERYBODY, bound, Amounts(tokens=1))).release()
    bench.database.close()
    passed = 0
    for index in range(2000):
        try:
            await gateway.reserve(f"r{index}", EVERYBODY, bound, Amounts(tokens=1))
            passed += 1
        except QuotaUnavailable:
            pass
    assert passed <= 1000


async def test_without_the_store_no_more_passes_than_was_held(tmp_path):
    url = f"sqlite:///{tmp_path}/transom.db"
    bench = Bench(opened(url), url)
    await closed_without_its_store(bench)


async def test_failing_open_lets_everything_through(tmp_path):
    url = f"sqlite:///{tmp_path}/transom.db"
    with pytest.raises(AssertionError):
        await closed_without_its_store(Bench(opened(url), url, kind="naive"))


async def test_a_lease_is_not_lent_for_ever_without_the_store(embedded):
    bound = limits(project__tokens_total=100_000)
    gateway = embedded.gateway(ttl=timedelta(seconds=30))
    await (await gateway.reserve("before", EVERYBODY, bound, Amounts(tokens=1))).release()
    await gateway.reserve("covered", EVERYBODY, bound, Amounts(tokens=1))
    embedded.database.close()
    await gateway.reserve("covered, too", EVERYBODY, bound, Amounts(tokens=1))
    embedded.time.pass_(16)
    with pytest.raises(QuotaUnavailable) as closed:
        await gateway.reserve("not any more", EVERYBODY, bound, Amounts(tokens=1))
    assert closed.value.retry_after > 0


def test_four_processes_and_a_store_that_stops_at_random():
    """Refused or unavailable, but never more than the limit; and it goes on when the store does."""
    [limit] = limits(project__tokens_total=600)
    chance = random.Random(2)
    with postgres.cluster() as cluster:
        url = cluster.create()
        opened(url).close()
        orders = {
            "mode": "rush",
            "kind": "real",
            "url": url,
            "now": NOON.isoformat(),
            "charged": EVERYBODY.columns(),
            "limits": [[limit.account, limit.budget, limit.limit]],
            "count": 24,
            "seconds": 8,
            "ttl": 3,
        }
        with workers(4, **orders) as started:
            go(started)
            for _ in range(3):
                time.sleep(0.15 + chance.random() / 2)
                cluster.stop()
                time.sleep(chance.random() / 2)
                cluster.start()
            done = reports(started)
        database = opened(url)
        bench = Bench(database, url)
        assert sum(report["settled"] for report in done) <= 60
        assert bench.count(limit).used == 10 * len(
            [row for row in bench.ledger() if row.outcome == "settled"]
        )
        assert bench.count(limit).used <= 600
        assert database.read_sync(reconcile.check) == []
        assert bench.held()[1] == 0
        database.close()


async def test_what_one_gateway_does_not_need_another_gets(bench):
    [limit] = bound = limits(project__tokens_total=1000)
    one, other = bench.gateway(), bench.gateway()
    await (await one.reserve("small", EVERYBODY, bound, Amounts(tokens=10))).release()
    await one.sweep()
    await one.sweep()
    await other.reserve("all", EVERYBODY, bound, Amounts(tokens=1000))
    assert bench.count(limit) == (0, 1000)
