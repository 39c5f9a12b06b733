"""When records open: shortening works at once, and what has been open stays open."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.access.projects.embargo import MONTHS, Choice, open_from, opens

MOMENTS = st.integers(0, 5 * 366 * 86_400 * 10**6).map(
    lambda microseconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
STEP = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("made", "months", "opened"),
    [
        ((2026, 1, 31), 0, (2026, 1, 31)),
        ((2026, 1, 31), 3, (2026, 4, 30)),
        ((2025, 11, 30), 3, (2026, 2, 28)),
        ((2027, 11, 30), 3, (2028, 2, 29)),
        ((2028, 2, 29), 12, (2029, 2, 28)),
        ((2026, 12, 31), 6, (2027, 6, 30)),
        ((2026, 9, 30), 6, (2027, 3, 30)),
    ],
)
def test_months_are_those_of_the_calendar(made, months, opened):
    assert open_from(datetime(*made, 23, 59, tzinfo=UTC), months) == datetime(*opened, 23, 59, tzinfo=UTC)


@given(MOMENTS, st.sampled_from(MONTHS), st.integers(-12, 12))
def test_the_zone_of_the_clock_does_not_matter(made, months, hours):
    elsewhere = made.astimezone(timezone(timedelta(hours=hours)))
    assert open_from(elsewhere, months) == open_from(made, months)


@given(MOMENTS, st.sampled_from(MONTHS), st.sampled_from(MONTHS))
def test_a_longer_embargo_never_ends_earlier(made, months, more):
    assert (open_from(made, months) <= open_from(made, more)) or months > more


@given(MOMENTS, MOMENTS, st.sampled_from(MONTHS))
def test_an_earlier_record_never_opens_later(one, other, months):
    first, second = sorted((one, other))
    assert open_from(first, months) <= open_from(second, months)


@st.composite
def choices(draw):
    moments = sorted(draw(st.lists(MOMENTS, min_size=1, max_size=5)))
    return [Choice(moment, draw(st.sampled_from(MONTHS))) for moment in moments]


def is_open(made, history, now):
    """The rule as people put it: open since any moment at which the embargo of that moment had passed."""
    moments = {now, made, *(choice.since for choice in history)}
    moments |= {open_from(made, months) for months in MONTHS}
    for moment in moments:
        in_force = [choice for choice in history if choice.since <= moment] or history[:1]
        if made <= moment <= now and open_from(made, in_force[-1].months) <= moment:
            return True
    return False


@given(MOMENTS, choices(), MOMENTS)
def test_a_record_is_open_from_the_first_moment_at_which_its_embargo_had_passed(made, history, now):
    if now >= made:
        assert (opens(made, history) <= now) == is_open(made, history, now)


@given(MOMENTS, choices(), MOMENTS, st.sampled_from(MONTHS))
def test_what_is_open_stays_open_whatever_is_chosen_later(made, history, later, months):
    now = max(later, history[-1].since)
    before = opens(made, history)
    after = opens(made, [*history, Choice(now, months)])
    if before < now:
        assert after == before
    else:
        assert after >= now


@given(MOMENTS, choices(), MOMENTS, st.sampled_from(MONTHS))
def test_shortening_never_delays_a_record(made, history, later, months):
    now = max(later, history[-1].since)
    if months <= history[-1].months:
        assert opens(made, [*history, Choice(now, months)]) <= opens(made, history)


@given(MOMENTS, choices())
def test_no_record_opens_before_it_is_made(made, history):
    assert opens(made, history) >= made


def test_shortening_to_nothing_opens_everything_at_once():
    start, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    history = [Choice(start, 12), Choice(now, 0)]
    assert opens(start + STEP, history) == now
    assert opens(now + STEP, history) == now + STEP


def test_lengthening_holds_back_only_what_was_not_open():
    start, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    history = [Choice(start, 3), Choice(now, 12)]
    # The day before, at the last moment: February's last, and so three months later the 28th of May.
    assert opens(datetime(2026, 3, 1, tzinfo=UTC) - STEP, history) < now
    assert opens(datetime(2026, 3, 1, tzinfo=UTC), history) == datetime(2027, 3, 1, tzinfo=UTC)
