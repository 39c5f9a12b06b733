"""What a refusal says: which limit, how full, how long to wait, and what else to do where that is no use."""

import pytest

from transom.access.quotas import Limit
from transom.access.quotas.accounts import Cell
from transom.access.quotas.budgets import DAY_US, MINUTE_US, SECOND_US
from transom.access.quotas.counters import Count
from transom.access.quotas.grants import Need, Shortage
from transom.access.quotas.refusals import HELD_SECONDS, IN_FLIGHT_SECONDS, refusal

NOW = 20_000 * DAY_US + 5 * MINUTE_US + 20 * SECOND_US + 1


def short(account, budget, limit, *, used=0, held=0, amount=1):
    bound = Limit(account, budget, limit)
    cell = Cell(account, budget, bound.of.window_start(NOW))
    return Shortage(Need(cell, bound, amount), Count(used, held))


@pytest.mark.parametrize(
    ("shortage", "seconds"),
    [
        (short("key:k", "requests_per_minute", 5, used=5), 40),
        (short("key:k", "tokens_per_minute", 5, used=2, held=3), 40),
        (short("key:k", "tokens_per_day", 5, used=5), 86_400 - 5 * 60 - 20),
        (short("key:k", "tokens_per_day", 5, used=2, held=3), HELD_SECONDS),
        (short("key:k", "requests_in_flight", 5, held=5), IN_FLIGHT_SECONDS),
        (short("key:k", "tokens_total", 5, used=2, held=3), HELD_SECONDS),
        (short("key:k", "tokens_total", 5, used=5), None),
        (short("key:k", "tokens_per_minute", 5, amount=6), None),
        (short("key:k", "requests_in_flight", 0), None),
    ],
)
def test_how_long_to_wait(shortage, seconds):
    error = refusal([shortage], NOW)
    assert error.retry_after == seconds
    assert error.reason == ("insufficient_quota" if seconds is None else "rate_limit_exceeded")
    assert error.layer == "quota"


def test_of_several_limits_the_one_that_takes_longest_decides():
    minute = short("key:k", "requests_per_minute", 5, used=5)
    day = short("project:p", "tokens_per_day", 5, used=5)
    total = short("person:u", "tokens_total", 5, used=5)
    assert refusal([minute, day], NOW).retry_after == refusal([day], NOW).retry_after
    assert refusal([minute, total, day], NOW).retry_after is None


@pytest.mark.parametrize(
    ("account", "subject"),
    [
        ("key:k", "Your key"),
        ("person:u", "You"),
        ("project:p", "Your project"),
        ("person_model:u:org/big:8b", "You, with the model org/big:8b,"),
        ("project_model:p:tiny", "Your project, with the model tiny,"),
        ("tier:open", "The pool of the tier open"),
        ("model:tiny", "The pool of the model tiny"),
    ],
)
def test_it_says_whose_limit_it_is_and_how_full(account, subject):
    message = refusal([short(account, "tokens_per_minute", 100, used=70, held=25, amount=6)], NOW).message
    assert message == (
        f"{subject} reached tokens_per_minute: the limit is 100 tokens, 70 used, 25 held for requests that "
        "are running; this one needs up to 6. Try again in 40 s."
    )


def test_seconds_of_engine_time_are_rounded_up():
    error = refusal([short("project:p", "engine_seconds", 3, used=2_000_001, amount=1_000_000)], NOW)
    assert "the limit is 3 seconds, 3 used, 0 held" in error.message
    assert "needs up to 1. Waiting does not help: apply for a supplement to the grant." in error.message


@pytest.mark.parametrize(
    ("shortage", "remedy"),
    [
        (short("model:m", "tokens_total", 5, used=5), "ask the operator"),
        (short("key:k", "tokens_total", 5, amount=6), "ask for less at once, or apply for more"),
    ],
)
def test_where_waiting_does_not_help_it_says_what_does(shortage, remedy):
    assert remedy in refusal([shortage], NOW).message
