"""Settlements that meet in a commit: what each would be alone, for little more than the price of one."""

import asyncio
import random
from datetime import timedelta

import pytest

from tests.quotas.gateway import EVERYBODY, Bench, limits
from transom.access.quotas import Amounts, Charged, Settlement, gateways, reconcile
from transom.errors import StorageError
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.storage.tables import quota_counters, quota_leases

pytestmark = pytest.mark.anyio

BOUND = limits(
    key__requests_per_minute=1000,
    project__tokens_per_minute=100_000,
    project__requests_in_flight=500,
    model__tokens_per_day=10**7,
)
SOMEBODY = Charged(key_id="k2", person_id="per_2", project_id="prj_2", tier="open", model="tiny")


@pytest.fixture
def open_bench(tmp_path):
    opened = []

    def make(name="transom"):
        url = f"sqlite:///{tmp_path}/{name}.db"
        opened.append(Database(url))
        migrate(opened[-1])
        return Bench(opened[-1], url)

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def bench(database_url):
    database = Database(database_url)
    migrate(database)
    yield Bench(database, database_url)
    database.close()


async def settle(bench, settlements):
    """As records do: in one commit, together, and each alone where that raises."""

    def write(connection, items):
        Settlement.together(connection, items)
        return [None] * len(items)

    async def one(settlement):
        with settlement:
            await bench.database.write_together(write, settlement)

    await asyncio.gather(*map(one, settlements))


def tables(bench):
    """Everything but the random ids of gateways."""
    leases, counters = quota_leases.c, quota_counters.c
    columns = (leases.account, leases.budget, leases.window_start, leases.amount)

    def read(connection):
        return (
            [row[1:] for row in connection.execute(quota_counters.select().order_by(*counters)).all()],
            sorted(
                tuple(row) for row in connection.execute(quota_leases.select().with_only_columns(*columns))
            ),
        )

    return sorted(bench.ledger()), *bench.database.read_sync(read)


async def test_one_that_was_settled_before_counts_once_and_hurts_no_other(bench):
    gateway = bench.gateway()
    twice, other = [await gateway.reserve(name, EVERYBODY, BOUND, Amounts(tokens=9)) for name in "ab"]
    await twice.settle(Amounts(tokens=5))
    await settle(bench, [twice.settlement(Amounts(tokens=7)), other.settlement(Amounts(tokens=3))])
    assert [(row.request_id, row.tokens) for row in bench.ledger()] == [("a", 5), ("b", 3)]
    assert bench.count(BOUND[1]).used == 8
    assert bench.database.read_sync(reconcile.check) == []


async def test_those_whose_holds_have_run_out_are_charged_as_far_as_there_is_room(bench):
    gateway = bench.gateway()
    made = [await gateway.reserve(f"r{index}", EVERYBODY, BOUND, Amounts(tokens=9)) for index in range(4)]
    book = made[0]._hold.book.id
    bench.database.write_sync(lambda connection: gateways.dissolve(connection, book))
    await settle(bench, [each.settlement(Amounts(tokens=5)) for each in made])
    assert [(row.outcome, row.tokens) for row in bench.ledger()] == [("expired", 5)] * 4
    assert bench.count(BOUND[1]) == (20, 0)
    assert bench.database.read_sync(reconcile.check) == []


async def test_those_of_a_gateway_that_lives_do_not_pay_for_one_that_is_dead(bench):
    dead, living = bench.gateway(), bench.gateway()
    first = await dead.reserve("dead", EVERYBODY, BOUND, Amounts(tokens=9))
    others = [await living.reserve(f"r{index}", EVERYBODY, BOUND, Amounts(tokens=9)) for index in range(3)]
    book = first._hold.book.id
    bench.database.write_sync(lambda connection: gateways.dissolve(connection, book))
    await settle(bench, [each.settlement(Amounts(tokens=4)) for each in (others[0], first, *others[1:])])
    outcomes = {row.request_id: (row.outcome, row.tokens) for row in bench.ledger()}
    assert outcomes == {"dead": ("expired", 4)} | {f"r{index}": ("settled", 4) for index in range(3)}
    assert bench.database.read_sync(reconcile.check) == []


async def test_no_part_of_what_failed_together_is_counted(bench):
    gateway = bench.gateway()
    made = [await gateway.reserve(name, EVERYBODY, BOUND, Amounts(tokens=9)) for name in "ab"]
    await made[0].settle(Amounts(tokens=5))
    settlements = [each.settlement(Amounts(tokens=5)) for each in made]
    with pytest.raises(StorageError, match="settled before"):
        await bench.database.write(lambda connection: Settlement.together(connection, settlements))
    assert len(bench.ledger()) == 1
    for settlement in settlements:
        with settlement:
            pass
    assert not made[1].open
    assert gateway._shelf._current.retired


async def test_what_counts_unheld_is_asked_about_again_by_whoever_charged_it(bench):
    pool = limits(tier__tokens_total=50)
    pooled, free = bench.gateway(), bench.gateway()
    await (await pooled.reserve("p", EVERYBODY, pool, Amounts(tokens=5))).settle(Amounts(tokens=5))
    made = [await free.reserve(name, EVERYBODY, BOUND, Amounts(tokens=9)) for name in "ab"]
    await settle(bench, [each.settlement(Amounts(tokens=9)) for each in made])
    assert bench.count(pool[0]).used == 23
    leases = free._shelf.current.leases
    assert all(lease.limit is None for cell, lease in leases.items() if cell.account in EVERYBODY.accounts())


async def test_together_is_what_one_after_another_is(open_bench):
    """Requests of two people and two gateways, over the end of a minute, that use less, all, or more."""
    chance = random.Random(7)
    plan = [
        (chance.randrange(2), chance.choice((EVERYBODY, SOMEBODY)), chance.choice((0, 3, 9, 15)))
        for _ in range(40)
    ]
    seen = []
    for way in ("together", "alone"):
        bench = open_bench(way)
        pair, made = [bench.gateway(), bench.gateway()], []
        for index, (which, charged, tokens) in enumerate(plan):
            if index == 20:
                bench.time.pass_(31)
            bound = BOUND if charged is EVERYBODY else limits(model__tokens_total=10**6)
            made.append((await pair[which].reserve(f"r{index}", charged, bound, Amounts(tokens=9)), tokens))
        bench.time.now += timedelta(seconds=1)
        settlements = [each.settlement(Amounts(tokens=tokens, engine_us=7)) for each, tokens in made]
        if way == "together":
            await settle(bench, settlements)
        else:
            for settlement in settlements:
                await settle(bench, [settlement])
        assert bench.database.read_sync(reconcile.check) == []
        seen.append(tables(bench))
    assert seen[0] == seen[1]
