"""Posting: what a charge costs, and that nothing is asked of SQL for a charge of nothing."""

from operator import itemgetter

import pytest

from tests.quotas.gateway import EVERYBODY, Bench, limits
from transom.access.quotas import VECTOR, Amounts, posting
from transom.storage.database import Database
from transom.storage.migrate import migrate

pytestmark = pytest.mark.anyio


@pytest.fixture
def bench(tmp_path):
    url = f"sqlite:///{tmp_path}/transom.db"
    database = Database(url)
    migrate(database)
    yield Bench(database, url)
    database.close()


def test_counters_are_looked_up_and_not_looked_through(bench):
    """An account has a row for each minute of two days."""
    text, order = posting._THERE._text(bench.database._writing.dialect)
    values = order(dict.fromkeys((*posting._ACCOUNTS, *posting._WINDOWS), 0))
    plan = bench.database.read_sync(
        lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
    )
    [search] = [step for step in map(itemgetter(3), plan) if step.startswith("SEARCH")]
    assert search.endswith("(account=? AND budget=? AND window_start=?)")


async def test_a_request_that_charges_nothing_of_a_limit_leaves_the_leases_of_the_others_alone(bench):
    bound = limits(project__tokens_total=100_000, project__released_rank=64)
    gateway = bench.gateway()
    full = Amounts(tokens=10, released_rank=VECTOR)
    await (await gateway.reserve("full", EVERYBODY, bound, full)).settle(full)
    await (await gateway.reserve("half", EVERYBODY, bound, Amounts(tokens=10))).settle(Amounts(tokens=10))
    with pytest.raises(StopIteration):  # it does not wait for SQL
        gateway.reserve("next", EVERYBODY, bound, Amounts(tokens=10)).send(None)


async def test_what_no_limit_of_a_request_is_about_is_counted_all_the_same(bench):
    [day] = limits(project__tokens_per_day=100)
    [total] = limits(project__tokens_total=200)
    gateway = bench.gateway()
    await (await gateway.reserve("one", EVERYBODY, [day], Amounts(tokens=60))).settle(Amounts(tokens=60))
    await (await gateway.reserve("two", EVERYBODY, [total], Amounts(tokens=50))).settle(Amounts(tokens=50))
    assert (bench.count(day).used, bench.count(total).used) == (110, 110)
