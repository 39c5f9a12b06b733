"""Leases in memory: all or nothing, never more than was granted, and nothing lent that may not be there."""

import pytest

from transom.access.quotas import Amounts, Limit
from transom.access.quotas.accounts import Cell
from transom.access.quotas.counters import Count
from transom.access.quotas.grants import Need, Share
from transom.access.quotas.leases import FIRST_APPETITE, LARGEST_APPETITE, Book, Hold, Shelf

TOKENS = Limit("project:p", "tokens_total", 100)
FLIGHT = Limit("key:k", "requests_in_flight", 4)


def need(limit, amount):
    return Need(Cell(limit.account, limit.budget, 0), limit, amount)


def granted(**spare):
    """A book to which so much was granted beyond the needs of one request, which is open."""
    book = Book()
    shares = {
        need(limit, 0).cell: Share(amount, Count(10, 30), limit.most)
        for limit, amount in ((TOKENS, spare["tokens"]), (FLIGHT, spare["flight"]))
    }
    book.record(shares, [[need(TOKENS, 5), need(FLIGHT, 1)]])
    book.extend(10.0)
    return book


def test_one_lease_that_is_too_small_takes_nothing_from_the_others():
    book = granted(tokens=50, flight=0)
    assert not book.take([need(TOKENS, 5), need(FLIGHT, 1)], now=0)
    assert book.withdraw([need(TOKENS, 0).cell]) == {need(TOKENS, 0).cell: 50}


def test_what_is_granted_is_lent_once():
    book = granted(tokens=12, flight=2)
    assert book.take([need(TOKENS, 6), need(FLIGHT, 1)], now=0)
    assert book.take([need(TOKENS, 6), need(FLIGHT, 1)], now=0)
    assert not book.take([need(TOKENS, 1)], now=0)
    assert book.open == 3


@pytest.mark.parametrize("why", ["the time is over", "retired", "another limit", "nothing was granted"])
def test_sql_is_asked_where(why):
    book = granted(tokens=50, flight=3)
    limit, now = TOKENS, 0.0
    match why:
        case "the time is over":
            now = 10.0
        case "retired":
            book.retired = True
        case "another limit":
            limit = Limit("project:p", "tokens_total", 99)
        case _:
            limit = Limit("project:other", "tokens_total", 100)
    assert not book.take([need(limit, 1)], now)


def test_a_settled_hold_leaves_the_rest_to_be_lent_and_counts_once():
    book = granted(tokens=0, flight=0)
    hold = Hold(book, [need(TOKENS, 5), need(FLIGHT, 1)])
    for _ in range(3):
        hold.settle(Amounts(tokens=2))
    assert book.withdraw(book.leases) == {need(TOKENS, 0).cell: 3, need(FLIGHT, 0).cell: 1}
    assert book.open == 0


def test_what_is_doubtful_is_never_lent():
    shelf = Shelf()
    book = shelf.current
    book.record({}, [[need(TOKENS, 5)]])
    book.extend(10.0)
    hold = Hold(book, [need(TOKENS, 5)])
    hold.doubt()
    assert (book.retired, book.open) == (True, 0)
    assert shelf.current is not book
    assert shelf.ended() == [book]
    assert book not in shelf.alive()


def test_a_retired_book_stays_alive_while_requests_stand_on_it():
    shelf = Shelf()
    book = shelf.current
    book.record({}, [[need(TOKENS, 5)], [need(TOKENS, 5)]])
    book.extend(10.0)
    Hold(book, [need(TOKENS, 5)]).doubt()
    assert shelf.current is not book
    assert (book in shelf.alive(), shelf.ended()) == (True, [])


def test_the_pace_of_the_last_sweep_stays_and_the_rest_goes_back():
    book = granted(tokens=50, flight=0)
    assert book.surplus() == {need(TOKENS, 0).cell: 45}
    assert book.surplus() == {need(TOKENS, 0).cell: 5}
    assert book.surplus() == {}
    assert set(book.leases) == {need(TOKENS, 0).cell, need(FLIGHT, 0).cell}
    Hold(book, [need(TOKENS, 5), need(FLIGHT, 1)]).release()
    assert book.surplus() == {need(TOKENS, 0).cell: 5, need(FLIGHT, 0).cell: 1}
    assert book.leases == {}


def test_appetite_grows_while_a_lease_runs_out_and_not_for_ever():
    book = granted(tokens=0, flight=0)
    cell = need(TOKENS, 0).cell
    seen = [book.appetite(cell) for _ in range(12)]
    assert seen[0] == 2 * FIRST_APPETITE
    assert seen[-1] == LARGEST_APPETITE
    book.surplus()
    book.surplus()
    assert book.appetite(cell) == FIRST_APPETITE


def test_a_hold_without_needs_stands_on_nothing():
    book = Book()
    Hold(book, []).settle(Amounts())
    assert book.open == 0
