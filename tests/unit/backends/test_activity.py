"""What is counted stays counted, and durations fall into their buckets."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from transom.backends.activity import Activity, Histogram
from transom.backends.meter import Meter
from transom.engine.messages import Stats

GAUGES = {"waiting", "running", "pages", "pages_used", "pages_cached"}
COUNTERS = {name for name in asdict(Activity()) if name not in GAUGES | {"refusals", "latencies"}}


def test_a_duration_falls_into_the_first_bucket_that_holds_it():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.100001, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative == [2, 4, 5]
    assert histogram.total == pytest.approx(8.200001)


def test_several_equal_durations_are_counted_each():
    histogram = Histogram((0.1, 1.0))
    histogram.observe(0.5, 3)
    assert (histogram.cumulative, histogram.total) == ([0, 3, 3], 1.5)


def test_no_counter_falls_when_an_engine_dies():
    meter = Meter()
    seen = dict.fromkeys(COUNTERS, 0)
    for engine in range(3):
        for told in range(1, 4):
            counted = dict.fromkeys(Stats.__struct_fields__, told * (5 - engine))
            meter.take(Stats(**counted))
            meter.generated_tokens += 1
            now = asdict(meter.read(taken=9, refusals={}))
            assert all(now[name] >= seen[name] for name in COUNTERS)
            seen = now
        meter.engine_died()
        now = asdict(meter.read(taken=9, refusals={}))
        assert all(now[name] >= seen[name] for name in COUNTERS)
    assert now["steps"] == 3 * (5 + 4 + 3)
    assert (now["restarts"], now["generated_tokens"]) == (3, 9)


def test_an_engine_that_died_runs_nothing_and_holds_nothing():
    meter = Meter()
    meter.take(Stats(running=3, pages=8, pages_used=5, pages_cached=2))
    assert (meter.read(taken=4, refusals={}).running, meter.read(taken=4, refusals={}).waiting) == (3, 1)
    meter.engine_died()
    now = meter.read(taken=4, refusals={})
    assert (now.running, now.waiting, now.pages, now.pages_used, now.pages_cached) == (0, 4, 0, 0, 0)


def test_no_more_run_than_are_in_flight():
    meter = Meter()
    meter.take(Stats(running=3))
    now = meter.read(taken=1, refusals={})
    assert (now.running, now.waiting) == (1, 0)
