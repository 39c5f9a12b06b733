"""P2. Any number of settle, release and expire for one request, in any order, counts once."""

from itertools import permutations

import pytest
from sqlalchemy import event

from tests.quotas.gateway import EVERYBODY, limits
from transom.access.quotas import Amounts, gateways, reconcile
from transom.errors import StorageError

pytestmark = pytest.mark.anyio

ENDINGS = sorted(set(permutations(["settle", "settle", "release", "expire"])))


async def end(bench, gateway, reservation, way):
    if way == "settle":
        await reservation.settle(Amounts(tokens=60))
    elif way == "release" or bench.kind == "naive":
        await reservation.release()
    else:
        book = reservation._hold.book.id
        bench.database.write_sync(lambda connection: gateways.dissolve(connection, book))


async def counts_once(bench, ways):
    """However it ends, and however often: one row, charged as the first ending says."""
    [limit, flight] = bound = limits(project__tokens_total=10**6, key__requests_in_flight=50)
    before = bench.count(limit).used
    gateway, name = bench.gateway(), "-".join(ways)
    reservation = await gateway.reserve(name, EVERYBODY, bound, Amounts(tokens=100))
    for way in ways:
        await end(bench, gateway, reservation, way)
    await gateway.sweep()
    await gateway.close()
    charged = 0 if next(way for way in ways if way != "expire") == "release" else 60
    assert bench.count(limit) == (before + charged, 0)
    assert bench.count(flight) == (0, 0)
    rows = [row for row in bench.ledger() if row.request_id == name]
    assert [row.tokens for row in rows] == [charged]


@pytest.mark.parametrize("ways", ENDINGS, ids="-".join)
async def test_every_order_of_every_ending(embedded, ways):
    await counts_once(embedded, ways)
    assert embedded.database.read_sync(reconcile.check) == []


async def test_every_order_on_one_server(bench):
    for ways in ENDINGS:
        await counts_once(bench, ways)
    assert bench.held() == (0, 0, 0)


@pytest.mark.parametrize(
    "ways", [("settle", "settle"), ("settle", "release"), ("release", "settle")], ids="-".join
)
async def test_writing_what_was_read_counts_twice(naive, ways):
    with pytest.raises(AssertionError):
        await counts_once(naive, ways)


async def test_two_settlements_in_one_transaction_count_once(bench):
    [limit] = bound = limits(project__tokens_total=1000)
    gateway = bench.gateway()
    reservation = await gateway.reserve("twice", EVERYBODY, bound, Amounts(tokens=100))
    with (
        reservation.settlement(Amounts(tokens=60)) as first,
        reservation.settlement(Amounts(tokens=7)) as second,
    ):
        await bench.database.write(lambda connection: [first(connection), second(connection)])
    assert bench.count(limit).used == 60
    assert [row.tokens for row in bench.ledger()] == [60]
    await gateway.sweep()
    assert bench.count(limit) == (60, 0)


async def test_a_settlement_whose_acknowledgement_is_lost_is_delivered_again_and_counts_once(bench):
    [limit] = bound = limits(project__tokens_total=1000)
    gateway = bench.gateway()
    reservation = await gateway.reserve("again", EVERYBODY, bound, Amounts(tokens=100))

    async def write_and_not_hear_of_it(settlement):
        with settlement:
            await bench.database.write(settlement)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await write_and_not_hear_of_it(reservation.settlement(Amounts(tokens=60)))
    await reservation.settle(Amounts(tokens=60))
    await gateway.sweep()
    assert bench.count(limit) == (60, 0)
    assert len(bench.ledger()) == 1


async def test_a_settlement_that_was_not_committed_charges_nothing_and_may_be_tried_again(bench):
    [limit] = bound = limits(project__tokens_total=1000)
    gateway = bench.gateway()
    reservation = await gateway.reserve("retried", EVERYBODY, bound, Amounts(tokens=100))

    def fail(_connection):
        raise OSError("the disk is gone")

    event.listen(bench.database._writing, "commit", fail, once=True)
    with pytest.raises(StorageError):
        await reservation.settle(Amounts(tokens=60))
    assert (bench.count(limit).used, bench.ledger()) == (0, [])
    await reservation.settle(Amounts(tokens=60))
    assert bench.count(limit).used == 60
    await gateway.sweep()
    assert bench.count(limit) == (60, 0)


async def test_usage_that_arrives_after_the_hold_ran_out_is_charged_as_far_as_there_is_room(bench):
    [limit] = bound = limits(project__tokens_total=150)
    late, other = bench.gateway(), bench.gateway()
    reservation = await late.reserve("late", EVERYBODY, bound, Amounts(tokens=100))
    book = reservation._hold.book.id
    bench.database.write_sync(lambda connection: gateways.dissolve(connection, book))
    await (await other.reserve("other", EVERYBODY, bound, Amounts(tokens=120))).settle(Amounts(tokens=120))
    await other.close()
    await reservation.settle(Amounts(tokens=60))
    assert bench.count(limit) == (150, 0)
    [row] = [row for row in bench.ledger() if row.request_id == "late"]
    assert (row.outcome, row.tokens, row.short) == ("expired", 30, True)
    assert bench.database.read_sync(reconcile.check) == []
