"""Percentiles, medians, ratios, and growth of memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.figures import medians, percentile, percentiles_ms, ratio, slope
from benchmarks.load.memory import growth_percent

MIB = 1 << 20


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 100))
def test_percentiles_are_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), abs=1e-6)


def test_a_percentile_of_nothing_is_no_number():
    assert math.isnan(percentile([], 50))


def test_percentiles_are_named_and_in_milliseconds():
    assert percentiles_ms("ttft", [0.1, 0.2, 0.3], (50,)) == {"ttft_p50_ms": 200.0}


def test_without_values_there_are_no_percentiles():
    assert percentiles_ms("itl", []) == {}


def test_the_median_is_of_the_rounds_that_have_the_figure():
    assert medians([{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}


def test_a_ratio_is_ours_over_theirs():
    assert ratio(3.0, 2.0) == 1.5


@pytest.mark.parametrize(("ours", "theirs"), [(None, 1.0), (1.0, None), (1.0, 0.0), (math.nan, 1.0)])
def test_there_is_no_ratio_without_two_figures(ours, theirs):
    assert ratio(ours, theirs) is None


def test_a_slope_is_that_of_the_line():
    assert slope([(0, 1), (10, 21), (20, 41)]) == pytest.approx(2)


def test_a_single_point_has_no_slope():
    assert slope([(0, 1)]) == 0


def test_growth_before_five_minutes_does_not_count():
    samples = [(at, (100 + min(at, 300)) * MIB) for at in range(0, 3600, 10)]
    assert growth_percent(samples) == (0, 0)


def test_growth_after_five_minutes_is_found_by_both_measures():
    samples = [(at, (1000 + at / 30) * MIB) for at in range(0, 3601, 10)]
    fit, last = growth_percent(samples)
    assert fit == pytest.approx(10.9, abs=0.5)
    assert last == pytest.approx(10, abs=1)


def test_of_a_short_run_the_second_half_counts():
    samples = [(at, 100 * MIB if at < 30 else 200 * MIB) for at in range(0, 61, 10)]
    assert growth_percent(samples) == (0, 0)
