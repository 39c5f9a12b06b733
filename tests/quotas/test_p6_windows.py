"""P6. A window is a function of policy and UTC; a reserve settles in its window; Retry-After is true."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.quotas.gateway import EVERYBODY, limits
from transom.access.quotas import BUDGETS, Amounts
from transom.access.quotas.budgets import moment_of
from transom.errors import QuotaExceeded
from transom.storage.tables import microseconds

pytestmark = pytest.mark.anyio

MOMENTS = st.integers(600_000_000, 7_000_000_000).flatmap(
    lambda second: st.integers(0, 999_999).map(lambda us: moment_of(second * 1_000_000 + us))
)
MICROSECOND = timedelta(microseconds=1)
BOUNDARIES = [
    datetime(2026, 11, 26, 12, 1, tzinfo=UTC),
    datetime(2026, 12, 31, 0, 0, tzinfo=UTC),
    datetime(2028, 2, 29, 0, 0, tzinfo=UTC),
    datetime(2028, 3, 1, 0, 0, tzinfo=UTC),
    datetime(2017, 1, 1, 0, 0, tzinfo=UTC),  # after a leap second
]


@given(MOMENTS, st.sampled_from(sorted(BUDGETS)))
def test_a_moment_lies_in_one_window_that_is_aligned_to_utc(moment, name):
    budget = BUDGETS[name]
    start = budget.window_start(microseconds(moment))
    if budget.period_us is None:
        assert start == 0
        return
    begins, ends = moment_of(start), moment_of(budget.window_end(start))
    assert begins <= moment < ends
    assert (begins.second, begins.microsecond) == (0, 0)
    if name == "tokens_per_day":
        assert (begins.date(), begins.hour, begins.minute) == (moment.date(), 0, 0)
        assert ends - begins == timedelta(days=1)


async def a_window_ends_to_the_microsecond(bench, boundary):
    """A reserve one microsecond before counts before, wherever it settles; one at the boundary, after it."""
    [limit] = bound = limits(key__tokens_per_minute=100)
    bench.time.now = boundary - MICROSECOND
    old, new = (
        limit.of.window_start(microseconds(boundary - after)) for after in (MICROSECOND, 0 * MICROSECOND)
    )
    gateway = bench.gateway()
    before = await gateway.reserve("before", EVERYBODY, bound, Amounts(tokens=100))
    with pytest.raises(QuotaExceeded) as refused:
        await gateway.reserve("refused", EVERYBODY, bound, Amounts(tokens=1))
    assert refused.value.retry_after == 1
    bench.time.now = boundary
    after = await gateway.reserve("after", EVERYBODY, bound, Amounts(tokens=100))
    bench.time.now = boundary + MICROSECOND
    await before.settle(Amounts(tokens=40))
    await after.settle(Amounts(tokens=90))
    await gateway.sweep()
    await gateway.sweep()
    assert (bench.count_in(limit, old), bench.count_in(limit, new)) == ((40, 0), (90, 0))


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
async def test_boundaries(embedded, boundary):
    await a_window_ends_to_the_microsecond(embedded, boundary)


async def test_boundaries_on_each_database(bench):
    await a_window_ends_to_the_microsecond(bench, BOUNDARIES[0])


async def test_counting_where_a_request_ends_moves_it_to_another_window(naive):
    with pytest.raises(AssertionError):
        await a_window_ends_to_the_microsecond(naive, BOUNDARIES[0])


async def test_a_clock_that_steps_back_finds_its_window_as_it_was(bench):
    [limit] = bound = limits(key__requests_per_minute=2)
    bench.time.now = datetime(2026, 11, 26, 12, 0, 58, tzinfo=UTC)
    gateway = bench.gateway()
    for index in range(2):
        await (await gateway.reserve(f"old{index}", EVERYBODY, bound, Amounts())).settle(Amounts())
    bench.time.now += timedelta(seconds=4)
    await (await gateway.reserve("new", EVERYBODY, bound, Amounts())).settle(Amounts())
    bench.time.now -= timedelta(seconds=5)
    with pytest.raises(QuotaExceeded) as refused:
        await gateway.reserve("back", EVERYBODY, bound, Amounts())
    assert refused.value.retry_after == 3
    bench.time.now += timedelta(seconds=5)
    assert bench.count(limit).used == 1
    await gateway.reserve("again", EVERYBODY, bound, Amounts())


@pytest.mark.parametrize("budget", ["requests_per_minute", "tokens_per_day", "tokens_total"])
async def test_changing_a_limit_resets_nothing(bench, budget):
    gateway = bench.gateway()
    [wide], [narrow], [wider] = (limits(**{f"project__{budget}": most}) for most in (10, 2, 11))

    async def ask(name, limit):
        reservation = await gateway.reserve(name, EVERYBODY, [limit], Amounts(tokens=1))
        await reservation.settle(Amounts(tokens=1))

    for index in range(4):
        await ask(f"wide{index}", wide)
    with pytest.raises(QuotaExceeded):
        await ask("narrow", narrow)
    assert bench.count(wide).used == 4
    for index in range(7):
        await ask(f"wider{index}", wider)
    with pytest.raises(QuotaExceeded):
        await ask("full", wider)
    assert bench.count(wide).used == 11


async def test_a_limit_that_begins_later_counts_what_was_used_before_it(bench):
    gateway = bench.gateway()
    await (await gateway.reserve("free", EVERYBODY, [], Amounts(tokens=30))).settle(Amounts(tokens=30))
    running = await gateway.reserve("running", EVERYBODY, [], Amounts(tokens=30))
    [limit] = bound = limits(project__tokens_total=100)
    with pytest.raises(QuotaExceeded):
        await gateway.reserve("too much", EVERYBODY, bound, Amounts(tokens=71))
    bounded = await gateway.reserve("fits", EVERYBODY, bound, Amounts(tokens=70))
    await running.settle(Amounts(tokens=25))
    assert bench.count(limit) == (55, 70)  # it was let in without a limit, and counts all the same
    await bounded.release()
    with pytest.raises(QuotaExceeded):
        await gateway.reserve("full", EVERYBODY, bound, Amounts(tokens=46))


RESETS = ["requests_per_minute", "tokens_per_minute", "tokens_per_day"]


@pytest.mark.parametrize("second", [0, 0.000001, 17.25, 59, 59.999999])
@pytest.mark.parametrize("budget", RESETS)
async def test_after_retry_after_and_not_a_second_earlier_the_same_request_passes(embedded, budget, second):
    bound = limits(**{f"key__{budget}": 10})
    start = datetime(2028, 2, 29, 23, 59, tzinfo=UTC) + timedelta(seconds=second)
    embedded.time.now = start
    gateway, demand = embedded.gateway(), Amounts(requests=10, tokens=10)
    await (await gateway.reserve("first", EVERYBODY, bound, demand)).settle(demand)
    with pytest.raises(QuotaExceeded) as refused:
        await gateway.reserve("refused", EVERYBODY, bound, demand)
    assert refused.value.reason == "rate_limit_exceeded"
    embedded.time.now = start + timedelta(seconds=refused.value.retry_after - 1)
    if refused.value.retry_after > 1:
        with pytest.raises(QuotaExceeded):
            await gateway.reserve("early", EVERYBODY, bound, demand)
    embedded.time.now = start + timedelta(seconds=refused.value.retry_after)
    await gateway.reserve("again", EVERYBODY, bound, demand)


@given(st.data())
def test_two_gateways_that_agree_on_the_time_agree_on_the_window(data):
    moment = data.draw(MOMENTS)
    later = moment + timedelta(microseconds=data.draw(st.integers(0, 10**12)))
    for budget in BUDGETS.values():
        starts = [budget.window_start(microseconds(each)) for each in (moment, later)]
        assert starts == sorted(starts)
        assert budget.window_start(starts[0]) == starts[0]
