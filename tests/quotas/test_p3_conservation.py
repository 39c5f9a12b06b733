"""P3. What is used equals the ledger, what is held the leases; counters are a cache that can be dropped."""

import random
import time
from contextlib import suppress

import pytest
from sqlalchemy import event, insert, text, update

from tests.quotas.gateway import EVERYBODY, NOON, limits
from transom.access.quotas import Amounts, Charged, Limit, reconcile
from transom.access.quotas.accounts import Cell
from transom.access.quotas.budgets import BUDGETS, DAY_US
from transom.errors import QuotaExceeded, StorageError
from transom.storage.tables import microseconds, quota_counters

pytestmark = pytest.mark.anyio

AMOUNTS = Amounts(tokens=8, engine_us=900_000, internals_bytes=64, released_rank=1)


def anybody(chance):
    return Charged(
        key_id=chance.choice((None, "k1", "k2")),
        person_id=chance.choice((None, "per_1", "per_2")),
        project_id=chance.choice(("prj_1", "prj_2")),
        tier=chance.choice((None, "open")),
        model=chance.choice(("tiny", "org/big:8b")),
    )


async def history(bench, chance, steps, *, at_each_step=lambda: None):
    """Requests of two gateways, with limits that come, go and change, in a clock that runs and jumps."""
    gateways, running, made = [bench.gateway(), bench.gateway()], [], set()
    for step in range(steps):
        charged = anybody(chance)
        bound = [
            Limit(account, budget, chance.choice((3, 20, 200)))
            for account in charged.accounts()
            for budget in chance.sample(list(BUDGETS), 2)
        ]
        made.update(bound)
        with suppress(QuotaExceeded):
            running.append(await chance.choice(gateways).reserve(f"r{step}", charged, bound, AMOUNTS))
        while len(running) > chance.randrange(6):
            ended = running.pop(chance.randrange(len(running)))
            used = Amounts(tokens=chance.randrange(9), engine_us=chance.randrange(900_000), released_rank=1)
            await (ended.settle(used) if chance.random() < 0.8 else ended.release())
        bench.time.pass_(chance.choice((0, 0, 1, 20, 61)))
        if chance.random() < 0.3:
            await chance.choice(gateways).sweep()
        at_each_step()
    return gateways, running, made


def equal(bench):
    assert bench.database.read_sync(reconcile.check) == []


@pytest.mark.parametrize("seed", range(2))
async def test_they_are_equal_after_every_step_of_any_history(bench, seed):
    await history(bench, random.Random(seed), 25, at_each_step=lambda: equal(bench))


async def test_dropping_the_counters_at_any_moment_changes_nothing(embedded):
    chance = random.Random(7)

    def drop():
        if chance.random() < 0.3:
            embedded.database.write_sync(reconcile.drop)
        equal(embedded)

    gateways, running, made = await history(embedded, chance, 40, at_each_step=drop)
    before = await gateways[0].standing(sorted(made, key=str))
    embedded.database.write_sync(reconcile.drop)
    assert await gateways[0].standing(sorted(made, key=str)) == before
    for reservation in running:
        await reservation.settle(Amounts(tokens=3))
    for gateway in gateways:
        await gateway.close()
    equal(embedded)
    assert embedded.held() == (0, 0, 0)


async def test_counters_that_were_changed_are_found_and_made_right(bench):
    gateways, _, _ = await history(bench, random.Random(3), 30)
    await gateways[0].reserve("held", EVERYBODY, limits(key__tokens_total=50), Amounts(tokens=20))

    def spoil(connection):
        connection.execute(update(quota_counters).values(used=quota_counters.c.used + 5, ceiling=10**9))
        connection.execute(update(quota_counters).where(quota_counters.c.held > 0).values(held=0))

    def counters(connection):
        return sorted(
            connection.execute(quota_counters.select().with_only_columns(*list(quota_counters.c)[:5]))
        )

    right = bench.database.read_sync(counters)
    bench.database.write_sync(spoil)
    assert len(bench.database.read_sync(reconcile.check)) == len(right)
    assert bench.database.write_sync(reconcile.rebuild) == len(right)
    assert bench.database.read_sync(counters) == right
    bench.database.write_sync(reconcile.drop)
    assert bench.database.write_sync(reconcile.rebuild) > 0
    equal(bench)


async def conserved_when_a_write_fails(bench):
    """The third commit after the reserve is lost: what is counted and what is in the ledger stay equal."""
    bound = limits(project__tokens_total=1000)
    gateway = bench.gateway()
    reservation = await gateway.reserve("r", EVERYBODY, bound, Amounts(tokens=10))
    left = [1]

    def fail(_connection):
        left[0] -= 1
        if left[0] == (0 if bench.kind == "real" else -1):
            raise OSError("killed")

    event.listen(bench.database._writing, "commit", fail)
    with pytest.raises(StorageError):
        await reservation.settle(Amounts(tokens=10))
    event.remove(bench.database._writing, "commit", fail)
    equal(bench)


async def test_a_write_that_fails_leaves_them_equal(bench):
    await conserved_when_a_write_fails(bench)


async def test_two_writes_for_one_request_leave_them_unequal(naive):
    with pytest.raises(AssertionError):
        await conserved_when_a_write_fails(naive)


FILL = text(
    """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
    INSERT INTO quota_ledger (request_id, key_id, person_id, project_id, tier, model, reserved, closed,
                              outcome, short, requests, tokens, engine_us, internals_bytes, released_rank)
    SELECT 'r' || i,
           CASE i % 3 WHEN 0 THEN 'k1' WHEN 1 THEN 'k2' END,
           CASE i % 5 WHEN 0 THEN 'per_1' WHEN 3 THEN 'per_2' END,
           CASE i % 2 WHEN 0 THEN 'prj_1' ELSE 'prj_2' END,
           CASE i % 7 WHEN 0 THEN NULL ELSE 'open' END,
           CASE i % 4 WHEN 0 THEN 'tiny' ELSE 'org/big:8b' END,
           :start + CAST(1728000 AS BIGINT) * i, :start + CAST(1728000 AS BIGINT) * i + 900000,
           'settled', FALSE, 1, i % 100, 900000, 64, i % 2
    FROM n
    """
)
"""100,000 requests in two days."""


def fill(connection):
    """A ledger, and counters for much of it that all say nothing; how many of them."""
    connection.execute(FILL, {"start": microseconds(NOON)})
    start = microseconds(NOON)
    windows = {
        name: range(BUDGETS[name].window_start(start), start + 2 * DAY_US, BUDGETS[name].period_us)
        for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day")
    }
    cells = [
        *(("project:prj_1", "requests_per_minute", minute) for minute in windows["requests_per_minute"]),
        *(("model:org/big:8b", "tokens_per_minute", minute) for minute in windows["tokens_per_minute"]),
        *(("key:k1", "tokens_per_day", day) for day in windows["tokens_per_day"]),
        *(
            (f"person:per_{n}", budget, 0)
            for n in (1, 2)
            for budget in ("tokens_total", "requests_in_flight")
        ),
        ("project_model:prj_2:org/big:8b", "released_rank", 0),
        ("tier:open", "engine_seconds", 0),
    ]
    zeros = {"used": 0, "held": 0, "ceiling": 0}
    connection.execute(insert(quota_counters), [{**Cell(*cell)._asdict(), **zeros} for cell in cells])
    return len(cells) - 2  # requests in flight are right


def test_100_000_requests_are_reconciled_in_seconds(bench):
    wrong = bench.database.write_sync(fill)
    began = time.monotonic()
    assert len(bench.database.read_sync(reconcile.check)) == wrong
    assert bench.database.write_sync(reconcile.rebuild) == wrong
    assert bench.database.read_sync(reconcile.check) == []
    # Far more than it takes on any machine, and far less than if each request were compared with each.
    assert time.monotonic() - began < 300
    assert bench.count(Limit("tier:open", "engine_seconds", 1)).used == 85_714 * 900_000
    assert bench.count(Limit("person:per_2", "tokens_total", 1)).used == sum(
        i % 100 for i in range(3, 100_000, 5)
    )
