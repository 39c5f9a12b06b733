"""The pace at which one may ask, against a model of it, and its bounds."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, select

from transom.access.credentials.peppers import generate
from transom.access.sign_in.throttle import Pace, Throttle, network_of
from transom.errors import QuotaExceeded
from transom.storage.tables import sign_in_paces

START = datetime(2026, 1, 31, tzinfo=UTC)


class Machine:
    """A throttle on a database of its own, and the time."""

    def __init__(self, **options):
        engine = create_engine("sqlite://")
        self.connection = engine.connect()
        sign_in_paces.create(self.connection)
        self.now = START
        self.throttle = Throttle(generate(), clock=lambda: self.now, **options)

    def take(self, *steps):
        """Seconds to wait; 0 for a step that was taken."""
        try:
            with self.connection.begin_nested():
                self.throttle.step(self.connection, steps)
        except QuotaExceeded as refused:
            return refused.retry_after
        return 0

    def rows(self):
        return self.connection.execute(select(func.count()).select_from(sign_in_paces)).scalar_one()


@pytest.fixture
def machine():
    return Machine()


PACE = Pace("p", 3, timedelta(seconds=10))


def test_a_burst_and_then_one_at_a_time(machine):
    assert [machine.take((PACE, "a")) for _ in range(5)] == [0, 0, 0, 10, 10]
    machine.now += timedelta(seconds=10)
    assert [machine.take((PACE, "a")) for _ in range(2)] == [0, 10]
    machine.now += timedelta(hours=1)
    assert [machine.take((PACE, "a")) for _ in range(4)] == [0, 0, 0, 10]


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 25_000_000), min_size=1, max_size=40),
    burst=st.integers(1, 4),
    every=st.integers(1, 10),
)
def test_no_more_are_let_through_than_promised_and_the_wait_is_true(gaps, burst, every):
    machine, pace, let_in = Machine(), Pace("p", burst, timedelta(seconds=every)), []
    for gap in gaps:
        machine.now += timedelta(microseconds=gap)
        wait = machine.take((pace, "a"))
        if wait:
            machine.now += timedelta(seconds=wait - 1)
            early = machine.take((pace, "a"))
            assert early <= 1
            if early:
                machine.now += timedelta(seconds=1)
                assert machine.take((pace, "a")) == 0
        let_in.append(machine.now)
    for index, first in enumerate(let_in):
        for count, last in enumerate(let_in[index:], start=1):
            assert count <= burst + (last - first) / pace.every


def test_all_or_none_is_charged(machine):
    for _ in range(3):
        machine.take((PACE, "a"))
    for _ in range(9):
        assert machine.take((PACE, "b"), (PACE, "a")) == 10
    assert [machine.take((PACE, "b")) for _ in range(4)] == [0, 0, 0, 10]


def test_subjects_and_paces_are_apart(machine):
    other = Pace("q", 1, timedelta(seconds=10))
    for _ in range(3):
        machine.take((PACE, "a"))
    assert machine.take((other, "a")) == 0
    assert machine.take((PACE, "b")) == 0


def test_rows_of_the_idle_go(machine):
    for number in range(50):
        machine.take((PACE, str(number)))
    machine.now += timedelta(minutes=1)
    machine.take((PACE, "a"))
    assert machine.rows() == 1


def test_there_are_never_more_rows_than_said():
    machine = Machine(most_subjects=20)
    for number in range(200):
        assert machine.take((PACE, str(number))) == 0
        assert machine.rows() <= 20


def test_who_is_slowed_down_is_not_forgotten_first():
    machine = Machine(most_subjects=20)
    for _ in range(3):
        machine.take((PACE, "a"))
    for number in range(100):
        machine.take((PACE, str(number)))
    assert machine.take((PACE, "a")) == 10


def test_no_address_stands_in_the_database(machine):
    machine.take((PACE, "ada@example.org"))
    (row,) = machine.connection.execute(select(sign_in_paces)).all()
    assert "ada@" not in str(row)
    assert len(row.name) == 64


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_a_subscriber_is_one_network(address, network):
    assert network_of(address) == network
