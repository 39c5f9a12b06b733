"""Tariffs: what follows from limits and windows is worked out once, and never believed for too long."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.quotas.gateway import EVERYBODY, NOON, limits
from transom.access.quotas import Amounts, Limit, tariffs
from transom.access.quotas.accounts import Cell
from transom.access.quotas.tariffs import Tariffs, tariff
from transom.storage.tables import microseconds

BOUND = limits(key__requests_per_minute=5, project__tokens_per_day=100, project__tokens_total=1000)
NOW = microseconds(NOON)
MINUTE = 60 * 10**6


def test_a_limit_on_somebody_else_is_no_limit_of_this_request():
    with pytest.raises(ValueError, match="project:other"):
        tariff(EVERYBODY, [Limit("project:other", "tokens_total", 1)], NOW)


def test_of_two_limits_on_one_cell_the_smaller_counts_wherever_it_stands():
    twice = (
        limits(project__tokens_total=7) + limits(project__tokens_total=5) + limits(project__tokens_total=9)
    )
    [(cell, limit, resource)] = tariff(EVERYBODY, twice, NOW).cells
    assert (cell, limit.limit, resource) == (Cell("project:prj_1", "tokens_total", 0), 5, "tokens")


def test_what_a_request_does_not_use_it_needs_no_room_for():
    asked = tariff(EVERYBODY, BOUND, NOW).needs(Amounts(tokens=0))
    assert [(need.limit.budget, need.amount) for need in asked] == [("requests_per_minute", 1)]


def test_limits_of_what_is_in_flight_cap_no_charge():
    found = tariff(EVERYBODY, limits(key__requests_in_flight=3, project__tokens_total=9), NOW)
    assert found.capped == {"tokens"}


class TestRemembering:
    def test_the_same_tuple_is_worked_out_once(self):
        known = Tariffs()
        assert known.of(EVERYBODY, BOUND, NOW) is known.of(EVERYBODY, BOUND, NOW + 1)

    def test_a_list_is_worked_out_anew_for_it_can_change(self):
        known, bound = Tariffs(), list(BOUND)
        known.of(EVERYBODY, bound, NOW)
        bound.pop(0)
        assert len(known.of(EVERYBODY, bound, NOW).cells) == 2

    def test_a_tuple_that_is_equal_and_another_one_is_worked_out_anew(self):
        known = Tariffs()
        first = known.of(EVERYBODY, limits(key__tokens_total=5), NOW)
        assert known.of(EVERYBODY, limits(key__tokens_total=6), NOW) is not first

    def test_somebody_else_is_charged_anew(self):
        known, bound = Tariffs(), limits(model__tokens_total=5)
        known.of(EVERYBODY, bound, NOW)
        other = replace(EVERYBODY, project_id="prj_2")
        assert known.of(other, bound, NOW).charged == other

    @given(st.lists(st.integers(-3 * MINUTE, 3 * MINUTE), min_size=1, max_size=20))
    def test_windows_are_those_of_the_moment_however_the_clock_jumps(self, jumps):
        known = Tariffs()
        for jump in jumps:
            now = NOW + jump
            assert known.of(EVERYBODY, BOUND, now).cells == tariff(EVERYBODY, BOUND, now).cells

    def test_the_last_microsecond_of_a_window_is_in_it_and_the_next_is_not(self):
        midnight = microseconds(datetime(2026, 11, 27, tzinfo=UTC))
        known = Tariffs()
        before = known.of(EVERYBODY, BOUND, midnight - 1)
        assert before.since <= midnight - 1 < before.until == midnight
        after = known.of(EVERYBODY, BOUND, midnight)
        assert {cell.window_start for cell, _, _ in after.cells} == {midnight, 0}

    def test_limits_without_windows_are_believed_for_ever(self):
        known, bound = Tariffs(), limits(project__tokens_total=5, key__requests_in_flight=2)
        later = microseconds(NOON + timedelta(days=400))
        assert known.of(EVERYBODY, bound, NOW) is known.of(EVERYBODY, bound, later)

    def test_no_more_are_remembered_than_there_is_room_for(self, monkeypatch):
        monkeypatch.setattr(tariffs, "MOST_TARIFFS", 3)
        known = Tariffs()
        kept = [limits(project__tokens_total=most) for most in range(10)]
        for bound in kept:
            known.of(EVERYBODY, bound, NOW)
        assert len(known._known) <= 3
