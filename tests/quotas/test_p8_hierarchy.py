"""P8. All accounts of a request or none, in a fixed order; neighbours touch each other only through pools."""

import random

import pytest
from sqlalchemy import text

from tests.quotas.conftest import opened
from tests.quotas.gateway import EVERYBODY, NOON, go, limits, reports, workers
from transom.access.quotas import Amounts, Charged, Limit, reconcile
from transom.access.quotas.accounts import kind_of
from transom.errors import QuotaExceeded

pytestmark = pytest.mark.anyio


async def all_or_nothing(bench, level):
    """Refused at one level, a request holds nothing at any."""
    bound = [
        Limit(account, "tokens_total", 5 if account.startswith(f"{level}:") else 1000)
        for account in EVERYBODY.accounts()
    ]
    gateway = bench.gateway()
    before = [bench.count(limit) for limit in bound]
    with pytest.raises(QuotaExceeded):
        await gateway.reserve("refused", EVERYBODY, bound, Amounts(tokens=6))
    await gateway.sweep()
    await gateway.sweep()
    assert [bench.count(limit) for limit in bound] == before
    await (await gateway.reserve("fits", EVERYBODY, bound, Amounts(tokens=5))).settle(Amounts(tokens=5))
    await gateway.sweep()
    await gateway.sweep()
    assert {bench.count(limit) for limit in bound} == {(5, 0)}


@pytest.mark.parametrize("level", [kind_of(account) for account in EVERYBODY.accounts()])
async def test_a_denial_at_each_level_holds_nothing(bench, level):
    await all_or_nothing(bench, level)


@pytest.mark.parametrize("level", ["project", "model"])
async def test_account_after_account_leaves_holds_behind(naive, level):
    with pytest.raises(AssertionError):
        await all_or_nothing(naive, level)


@pytest.mark.parametrize("seed", range(4))
async def test_random_trees_with_overlapping_pools(embedded, seed):
    """What every account holds is what its requests hold, and afterwards nothing."""
    chance = random.Random(seed)
    gateway, running, made = embedded.gateway(), [], set()
    for index in range(80):
        charged = Charged(
            key_id=f"k{chance.randrange(4)}",
            person_id=f"per_{chance.randrange(2)}",
            project_id=f"prj_{chance.randrange(2)}",
            tier="open",
            model=f"m{chance.randrange(2)}",
        )
        accounts = chance.sample(charged.accounts(), chance.randrange(1, 6))
        bound = [Limit(account, "requests_in_flight", chance.randrange(1, 9)) for account in accounts]
        try:
            running.append((bound, await gateway.reserve(f"r{index}", charged, bound, Amounts())))
            made.update(limit.account for limit in bound)
        except QuotaExceeded:
            pass
        if chance.random() < 0.4 and running:
            await running.pop(chance.randrange(len(running)))[1].settle(Amounts())
        if index % 8 == 0:
            await gateway.sweep()
            await gateway.sweep()
            for account in made:
                held = sum(account in {limit.account for limit in bound} for bound, _ in running)
                assert embedded.count(Limit(account, "requests_in_flight", 0)) == (0, held)
    for _, reservation in running:
        await reservation.release()
    await gateway.close()
    assert embedded.held() == (0, 0, 0)


async def test_a_noisy_neighbour_changes_nothing_until_the_pool_is_the_limit(bench):
    gateway = bench.gateway()
    noisy, quiet = (Charged(project_id=f"prj_{name}", model="tiny") for name in ("noisy", "quiet"))
    pool = Limit("model:tiny", "tokens_per_day", 100)

    async def ask(charged, name, tokens):
        bound = [Limit(f"project:{charged.project_id}", "tokens_per_day", 60), pool]
        reservation = await gateway.reserve(name, charged, bound, Amounts(tokens=tokens))
        await reservation.settle(Amounts(tokens=tokens))

    for index in range(6):
        await ask(noisy, f"n{index}", 10)
    for index in range(20):
        with pytest.raises(QuotaExceeded, match="Your project"):
            await ask(noisy, f"flood{index}", 10)
    for index in range(4):
        await ask(quiet, f"q{index}", 10)
    with pytest.raises(QuotaExceeded, match="The pool of the model tiny"):
        await ask(quiet, "over", 10)


def test_ten_thousand_transactions_without_a_deadlock(postgres_cluster):
    url = postgres_cluster.create()
    database = opened(url)
    orders = {"mode": "storm", "kind": "real", "url": url, "now": NOON.isoformat(), "count": 250}
    with workers(4, **orders) as started:
        go(started)
        done = reports(started)
    assert [wrong for report in done for wrong in report["wrong"]] == []
    assert sum(report["writes"] for report in done) >= 10_000
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert database.read_sync(lambda connection: connection.execute(query).scalar_one()) == 0
    assert database.read_sync(reconcile.check) == []
    held = text("SELECT coalesce(sum(held), 0) FROM quota_counters")
    assert database.read_sync(lambda connection: int(connection.execute(held).scalar_one())) == 0
    database.close()


async def test_a_limit_on_somebody_else_is_a_mistake_of_the_caller(embedded):
    gateway = embedded.gateway()
    with pytest.raises(ValueError, match="not charged"):
        await gateway.reserve(
            "r", Charged(project_id="prj_1"), limits(key__tokens_total=5), Amounts(tokens=1)
        )
