"""P4. Whatever happens to a request or to its gateway, its hold ends, and what was used is charged once."""

import asyncio
import gc
import signal
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import event

from tests.quotas.gateway import EVERYBODY, NOON, go, limits, workers
from transom.access.quotas import Amounts, reconcile
from transom.errors import QuotaUnavailable, StorageError

pytestmark = pytest.mark.anyio

BOUND = {"project__tokens_total": 1000, "key__requests_in_flight": 32}


async def killed_with_32_in_flight(bench):
    """SIGKILL; four of the 32 had been settled. Another gateway finds the rest, and gives it back."""
    bound = limits(**BOUND)
    orders = {
        "mode": "hold",
        "kind": bench.kind,
        "url": bench.url,
        "now": NOON.isoformat(),
        "charged": EVERYBODY.columns(),
        "limits": [[limit.account, limit.budget, limit.limit] for limit in bound],
        "count": 32,
        "settled": 4,
    }
    with workers(1, **orders) as [worker]:
        go([worker])
        assert worker.stdout.readline() == "holding\n"
        assert bench.count(bound[0]).held >= 280
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    survivor = bench.gateway(ttl=timedelta(seconds=30))
    for _ in range(8):
        await survivor.sweep()
        bench.time.pass_(5)
    await survivor.sweep()
    assert [bench.count(limit) for limit in bound] == [(16, 0), (0, 0)]
    assert bench.held() == (0, 0, 0)
    assert [row.tokens for row in bench.ledger()] == [4] * 4
    assert bench.database.read_sync(reconcile.check) == []
    for index in range(32):  # and there is room again
        await survivor.reserve(f"next-{index}", EVERYBODY, bound, Amounts(tokens=10))


async def test_a_gateway_killed_with_32_in_flight(bench):
    await killed_with_32_in_flight(bench)


async def test_holds_that_nobody_ends_stay_for_ever(naive):
    with pytest.raises(AssertionError):
        await killed_with_32_in_flight(naive)


async def test_nobody_ends_a_gateway_that_lives_however_long_its_request_runs(bench):
    bound = limits(**BOUND)
    one, other = bench.gateway(), bench.gateway()
    reservation = await one.reserve("long", EVERYBODY, bound, Amounts(tokens=100))
    for _ in range(60):
        bench.time.pass_(5)
        await one.sweep()
        await other.sweep()
    assert bench.count(bound[0]) == (0, 100)
    await reservation.settle(Amounts(tokens=70))
    await one.close()
    assert [bench.count(limit) for limit in bound] == [(70, 0), (0, 0)]
    assert [row.outcome for row in bench.ledger()] == ["settled"]


async def test_a_gateway_that_was_asleep_lends_nothing_from_leases_that_others_have_ended(bench):
    [limit] = bound = limits(project__tokens_total=1000)
    sleeper, other = bench.gateway(), bench.gateway()
    reservation = await sleeper.reserve("before", EVERYBODY, bound, Amounts(tokens=10))
    for _ in range(9):
        await other.sweep()
        bench.time.pass_(5)
    assert bench.count(limit) == (0, 0)
    await (await other.reserve("all of it", EVERYBODY, bound, Amounts(tokens=1000))).settle(
        Amounts(tokens=1000)
    )
    with pytest.raises(Exception, match="tokens_total"):
        await sleeper.reserve("after", EVERYBODY, bound, Amounts(tokens=1))
    await reservation.settle(Amounts(tokens=10))
    assert bench.count(limit) == (1000, 0)
    await sleeper.sweep()
    await sleeper.close()
    await other.close()
    assert bench.held() == (0, 0, 0)


async def test_leaving_at_any_moment_of_a_reserve_leaves_no_hold(embedded):
    bound = limits(**BOUND)
    gateway = embedded.gateway()
    for steps in range(12):
        task = asyncio.create_task(gateway.reserve(f"r{steps}", EVERYBODY, bound, Amounts(tokens=10)))
        for _ in range(steps):
            await asyncio.sleep(0.0005 if steps > 6 else 0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await (await task).release()
        await gateway.sweep()
        await gateway.sweep()
        embedded.time.pass_(1)
    await asyncio.sleep(0.05)
    for _ in range(3):
        await gateway.sweep()
    assert [embedded.count(limit) for limit in bound] == [(0, 0), (0, 0)]
    assert gateway._shelf.current.open == 0


async def hang():
    await asyncio.sleep(3600)


async def reset():
    raise ConnectionResetError


async def dribble():
    await asyncio.sleep(0.002)


@pytest.mark.parametrize("upstream", [hang, reset, dribble])
@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_upstreams_that_fail_and_clients_that_leave(embedded, upstream, chunks):
    """However it ends, what was generated until then is charged, or nothing if nothing was."""
    bound = limits(**BOUND)
    gateway, generated, begun = embedded.gateway(), [0], asyncio.Event()

    async def request():
        reservation = await gateway.reserve("r", EVERYBODY, bound, Amounts(tokens=20))
        async with reservation:
            begun.set()
            try:
                for _ in range(chunks):
                    generated[0] += 2
                    await asyncio.sleep(0)
                await upstream()
            finally:
                if generated[0]:
                    await reservation.settle(Amounts(tokens=5 + generated[0]))

    task = asyncio.create_task(request())
    await begun.wait()
    await asyncio.wait([task], timeout=0.05)
    task.cancel()
    with suppress(asyncio.CancelledError, ConnectionResetError):
        await task
    for _ in range(3):
        await gateway.sweep()
    used = 5 + generated[0] if generated[0] else 0
    assert [embedded.count(limit) for limit in bound] == [(used, 0), (0, 0)]
    assert [row.outcome for row in embedded.ledger()] == ["settled" if used else "released"]


async def test_a_reservation_that_is_dropped_unclosed_gives_its_hold_back(bench):
    bound = limits(**BOUND)
    gateway = bench.gateway()
    await gateway.reserve("dropped", EVERYBODY, bound, Amounts(tokens=10))
    gc.collect()
    for _ in range(3):
        await gateway.sweep()
    assert [bench.count(limit) for limit in bound] == [(0, 0), (0, 0)]


async def test_a_settlement_that_nobody_wrote_leaves_no_hold(bench):
    bound = limits(**BOUND)
    gateway = bench.gateway()
    reservation = await gateway.reserve("unwritten", EVERYBODY, bound, Amounts(tokens=10))
    with reservation.settlement(Amounts(tokens=5)):
        pass
    for _ in range(3):
        await gateway.sweep()
    assert [bench.count(limit) for limit in bound] == [(0, 0), (0, 0)]


async def test_a_write_that_is_undone_leaves_neither_a_charge_nor_a_hold(bench):
    bound = limits(**BOUND)
    gateway = bench.gateway()
    reservation = await gateway.reserve("undone", EVERYBODY, bound, Amounts(tokens=10))

    def write(connection):
        settlement(connection)
        raise KeyError("no such project")

    with pytest.raises(KeyError), reservation.settlement(Amounts(tokens=5)) as settlement:
        await bench.database.write(write)
    for _ in range(3):
        await gateway.sweep()
    assert [bench.count(limit) for limit in bound] == [(0, 0), (0, 0)]
    assert bench.ledger() == []


@pytest.mark.parametrize("lost", ["reserve", "release", "sweep", "settle"])
async def test_a_commit_that_is_lost_leaves_no_hold(bench, lost):
    bound = limits(**BOUND)
    gateway = bench.gateway()
    await (await gateway.reserve("first", EVERYBODY, bound, Amounts(tokens=10))).release()

    def fail(_connection):
        raise OSError("the disk is gone")

    def break_next():
        event.listen(bench.database._writing, "commit", fail, once=True)

    if lost == "reserve":
        await gateway.sweep()
        await gateway.sweep()
        break_next()
        with pytest.raises(QuotaUnavailable):
            await gateway.reserve("second", EVERYBODY, bound, Amounts(tokens=10))
    else:
        reservation = await gateway.reserve("second", EVERYBODY, bound, Amounts(tokens=10))
        if lost == "sweep":
            break_next()
            with suppress(StorageError):
                await gateway.sweep()
                await gateway.sweep()
            await reservation.release()
        else:
            break_next()
            with suppress(StorageError):
                await (reservation.release() if lost == "release" else reservation.settle(Amounts()))
    for _ in range(4):
        await gateway.sweep()
    assert [bench.count(limit) for limit in bound] == [(0, 0), (0, 0)]
    assert bench.database.read_sync(reconcile.check) == []


async def test_leases_go_back_within_two_sweeps_of_the_last_request(bench):
    [limit] = bound = limits(project__tokens_total=10**6)
    gateway = bench.gateway()
    await (await gateway.reserve("last", EVERYBODY, bound, Amounts(tokens=10))).settle(Amounts(tokens=10))
    assert bench.count(limit).held > 0
    await gateway.sweep()
    await gateway.sweep()
    assert bench.count(limit) == (10, 0)
