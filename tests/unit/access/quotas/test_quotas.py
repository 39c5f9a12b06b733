"""The desk: what a request costs, what it is told of its standing, and what the ledger says of use."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import event

from tests.quotas.gateway import EVERYBODY, Bench, limits
from transom.access.quotas import Amounts, Charged, Standing
from transom.errors import QuotaExceeded, QuotaUnavailable
from transom.storage.database import Database
from transom.storage.migrate import migrate

pytestmark = pytest.mark.anyio

BOUND = limits(
    key__requests_per_minute=1000,
    project__tokens_per_minute=100_000,
    project__requests_in_flight=500,
    model__tokens_per_day=10**7,
)


@pytest.fixture
def bench(tmp_path):
    url = f"sqlite:///{tmp_path}/transom.db"
    database = Database(url)
    migrate(database)
    yield Bench(database, url)
    database.close()


@pytest.fixture
def commits(bench):
    seen = []
    event.listen(bench.database._writing, "commit", seen.append)
    return seen


async def test_a_request_that_leases_cover_waits_for_nothing(bench):
    gateway = bench.gateway()
    await gateway.reserve("first", EVERYBODY, BOUND, Amounts(tokens=10))
    with pytest.raises(StopIteration) as returned:
        gateway.reserve("second", EVERYBODY, BOUND, Amounts(tokens=10)).send(None)
    assert returned.value.value.request_id == "second"


async def test_a_request_without_limits_waits_for_nothing_and_is_in_the_ledger(bench):
    gateway = bench.gateway()
    with pytest.raises(StopIteration) as returned:
        gateway.reserve("free", Charged(project_id="local"), [], Amounts(tokens=10)).send(None)
    await returned.value.value.settle(Amounts(tokens=7))
    assert [(row.project_id, row.tokens) for row in bench.ledger()] == [("local", 7)]


async def test_a_request_costs_one_commit_once_there_are_leases(bench, commits):
    gateway = bench.gateway()
    await (await gateway.reserve("first", EVERYBODY, BOUND, Amounts(tokens=10))).settle(Amounts(tokens=5))
    commits.clear()
    for index in range(8):
        reservation = await gateway.reserve(f"r{index}", EVERYBODY, BOUND, Amounts(tokens=10))
        await reservation.settle(Amounts(tokens=5))
    assert len(commits) == 8


async def test_the_settlement_is_part_of_the_transaction_that_it_is_composed_into(bench, commits):
    gateway = bench.gateway()
    reservation = await gateway.reserve("first", EVERYBODY, BOUND, Amounts(tokens=10))
    commits.clear()
    with reservation.settlement(Amounts(tokens=5)) as settlement:
        seen = await bench.database.write(lambda c: (settlement(c), c.connection.in_transaction)[1])
    assert seen
    assert len(commits) == 1
    assert not reservation.open


async def test_many_requests_at_once_are_decided_together_and_none_is_refused_for_another_ones_lease(
    bench, commits
):
    [limit] = bound = limits(project__tokens_total=400)
    gateway = bench.gateway()
    made = await asyncio.gather(
        *(gateway.reserve(f"r{index}", EVERYBODY, bound, Amounts(tokens=1)) for index in range(400))
    )
    assert len(commits) < 8
    assert bench.count(limit) == (0, 400)
    with pytest.raises(QuotaExceeded):
        await gateway.reserve("one more", EVERYBODY, bound, Amounts(tokens=1))
    await asyncio.gather(*(reservation.release() for reservation in made))


async def test_the_last_of_a_limit_is_found_in_what_this_gateway_holds(bench):
    bound = limits(project__tokens_total=100)
    gateway = bench.gateway()
    await (await gateway.reserve("first", EVERYBODY, bound, Amounts(tokens=1))).release()
    await gateway.reserve("all", EVERYBODY, bound, Amounts(tokens=100))


async def test_the_smaller_of_two_limits_on_the_same_account_counts(bench):
    gateway = bench.gateway()
    bound = [*limits(project__tokens_total=100), *limits(project__tokens_total=7)]
    with pytest.raises(QuotaExceeded, match="limit is 7 tokens"):
        await gateway.reserve("first", EVERYBODY, bound, Amounts(tokens=8))


async def test_standing_is_the_same_from_memory_as_from_sql_after_a_request(bench):
    gateway = bench.gateway()
    running = await gateway.reserve("running", EVERYBODY, BOUND, Amounts(tokens=30))
    await (await gateway.reserve("over", EVERYBODY, BOUND, Amounts(tokens=30))).settle(Amounts(tokens=12))
    [requests, tokens, flight, day] = await gateway.standing(BOUND)
    assert gateway.standing_now(EVERYBODY, BOUND) == [requests, tokens, flight, day]
    assert requests == Standing(limit=BOUND[0], used=1, held=1, remaining=998, reset=30)
    assert tokens == Standing(limit=BOUND[1], used=12, held=30, remaining=99_958, reset=30)
    assert flight == Standing(limit=BOUND[2], used=0, held=1, remaining=499, reset=None)
    assert (day.reset, day.remaining) == (12 * 3600 - 30, 10**7 - 42)
    await running.release()
    bench.time.pass_(30)
    assert [each.used for each in await gateway.standing(BOUND)] == [0, 0, 0, 12]


async def test_what_memory_does_not_know_is_left_out_of_the_standing(bench):
    assert bench.gateway().standing_now(EVERYBODY, BOUND) == []


async def test_the_standing_never_promises_more_than_there_is(bench):
    [limit] = limits(project__engine_seconds=3)
    gateway = bench.gateway()
    reservation = await gateway.reserve("r", EVERYBODY, [limit], Amounts(engine_us=1_000_001))
    await reservation.settle(Amounts(engine_us=1_000_001))
    [standing] = await gateway.standing([limit])
    assert (standing.used, standing.remaining) == (2, 1)
    [lowered] = await gateway.standing(limits(project__engine_seconds=1))
    assert lowered.remaining == 0


async def test_usage_is_by_day_of_utc_from_the_first_moment_to_just_before_the_last(bench):
    gateway = bench.gateway()
    moments = [
        datetime(2028, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2028, 2, 29, tzinfo=UTC),
        datetime(2028, 2, 29, 12, tzinfo=UTC),
        datetime(2028, 3, 1, tzinfo=UTC),
    ]
    for index, bench.time.now in enumerate(moments):
        reservation = await gateway.reserve(f"r{index}", EVERYBODY, [], Amounts(tokens=10))
        await reservation.settle(Amounts(tokens=10**index, engine_us=5))
    found = await gateway.usage(moments[0], moments[3], project_id="prj_1")
    assert [(day.day, day.requests, day.tokens, day.engine_us) for day in found] == [
        (date(2028, 2, 28), 1, 1, 5),
        (date(2028, 2, 29), 2, 110, 10),
    ]
    late = await gateway.usage(moments[3], moments[3] + timedelta(days=1), key_id="k1")
    assert [day.tokens for day in late] == [1000]
    assert await gateway.usage(moments[0], moments[3], person_id="per_2") == []


@pytest.mark.parametrize("names", [{}, {"project_id": "p", "key_id": "k"}])
async def test_usage_is_of_one_account(bench, names):
    with pytest.raises(ValueError, match="one project, one key or one person"):
        await bench.gateway().usage(bench.time.now, bench.time.now, **names)


async def test_without_a_database_standing_and_usage_are_unavailable(bench):
    gateway = bench.gateway()
    bench.database.close()
    with pytest.raises(QuotaUnavailable):
        await gateway.standing(BOUND)
    with pytest.raises(QuotaUnavailable):
        await gateway.usage(bench.time.now, bench.time.now, project_id="p")


async def test_sweeping_goes_on_after_a_store_that_failed(bench):
    gateway = bench.gateway()
    await (await gateway.reserve("first", EVERYBODY, BOUND, Amounts(tokens=10))).release()

    def fail(_connection):
        raise OSError("the disk is gone")

    event.listen(bench.database._writing, "commit", fail, once=True)
    sweeping = asyncio.create_task(gateway.run(timedelta(milliseconds=1)))
    async with asyncio.timeout(10):
        while bench.held()[0]:  # noqa: ASYNC110 - what another thread writes
            await asyncio.sleep(0.01)
    assert not sweeping.done()
    sweeping.cancel()


async def test_old_counters_are_forgotten_and_the_ledger_is_not(bench):
    [limit] = bound = limits(key__requests_per_minute=5)
    gateway = bench.gateway()
    await (await gateway.reserve("old", EVERYBODY, bound, Amounts())).settle(Amounts())
    start = limit.of.window_start(int(bench.time.now.timestamp() * 1_000_000))
    for days in (1, 2):
        bench.time.pass_(86_400 * days)
        await gateway.sweep()
        await gateway.sweep()
        assert bench.count_in(limit, start).used == 2 - days
    assert len(bench.ledger()) == 1
