"""How findings are compared, the documented noise, and the page of experiments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.equality.experiment import Experiment, is_same
from benchmarks.equality.outcome import ALL
from benchmarks.equality.page import page
from benchmarks.equality.sampling import noise
from benchmarks.equality.words import EXPERIMENTS, SCENARIO
from benchmarks.load.page import page as performance
from benchmarks.load.rows import Row


def floats(*numbers):
    return np.asarray(numbers, np.float32)


def experiment(*absolute):
    return Experiment("lens", [], lambda _: {}, absolute=absolute)


class TestComparison:
    """Numbers may differ by so much, tokens not at all."""

    def test_a_difference_counts_in_parts_of_the_largest_number_of_its_vector(self):
        found = experiment().compare({"x": floats(1000.05, 2, 3)}, {"x": floats(1000, 2, 3)})
        assert found.largest == pytest.approx(0.05, rel=1e-3)
        assert found.scaled == pytest.approx(5e-5, rel=1e-3)
        assert found.numbers == 3
        assert found.is_small

    def test_a_large_number_of_another_vector_excuses_nothing(self):
        ours, theirs = np.stack([floats(1000, 2), floats(1, 2.05)]), np.stack([floats(1000, 2), floats(1, 2)])
        assert not experiment().compare({"x": ours}, {"x": theirs}).is_small

    def test_what_is_below_one_counts_as_it_is(self):
        found = experiment().compare({"x": floats(0.01, 2e-4)}, {"x": floats(0.01, 1e-4)})
        assert found.scaled == found.largest == pytest.approx(1e-4, rel=1e-3)

    @pytest.mark.parametrize(("absolute", "small"), [(("answers",), False), (("others",), True)])
    def test_some_values_are_held_to_the_limit_however_large_they_are(self, absolute, small):
        found = experiment(*absolute).compare({"0.a.answers": floats(20.001)}, {"0.a.answers": floats(20)})
        assert found.is_small is small

    def test_another_token_is_no_small_difference(self):
        with pytest.raises(ValueError, match="1 of 2 tokens differ"):
            experiment().compare({"x": np.array([5, 6], np.int32)}, {"x": np.array([5, 7])})

    def test_another_shape_is_said(self):
        with pytest.raises(ValueError, match="x has shape"):
            experiment().compare({"x": floats(1, 2)}, {"x": floats(1)})

    def test_a_value_that_only_one_has_is_said(self):
        with pytest.raises(ValueError, match=r"\['y'\]"):
            experiment().compare({"x": floats(1)}, {"x": floats(1), "y": floats(1)})

    def test_what_is_no_number_equals_nothing(self):
        with pytest.raises(ValueError, match="no number"):
            experiment().compare({"x": floats(np.nan)}, {"x": floats(np.nan)})


class TestBytes:
    """Alone and in traffic, every bit counts."""

    def test_one_bit_is_another_answer(self):
        changed = np.nextafter(floats(1, 2), floats(9, 9))
        assert is_same({"x": floats(1, 2)}, {"x": floats(1, 2)})
        assert not is_same({"x": floats(1, 2)}, {"x": changed})

    def test_zeros_of_different_sign_are_different_bytes(self):
        assert not is_same({"x": floats(0.0)}, {"x": floats(-0.0)})

    def test_a_missing_value_is_another_answer(self):
        assert not is_same({"x": floats(1)}, {})


# Of the authors' own known answers (Random123, kat_vectors), for a key and a counter of zeros.
ZEROS = 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8


def test_noise_is_that_of_the_papers_generator():
    expected = [-np.log(-np.log1p(-(word + 0.5) / 2.0**32)) for word in ZEROS]
    np.testing.assert_array_equal(noise(0, 0, 0, 4), expected)


def test_noise_differs_with_seed_position_choice_and_token():
    drawn = [noise(*key, 5)[4] for key in ((0, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({*drawn, noise(0, 0, 0, 5)[3]}) == 5


def test_every_experiment_has_words():
    assert [make().key for make in ALL] == list(EXPERIMENTS)


FIGURES = {"numbers": 1234.0, "largest": 0.5, "scaled": 2e-5, "absolute": 3e-6, "same": 1.0, "company": 9.0}

ROW = Row(
    run="20260203T040506Z",
    date="2026-02-03T04:05:06+00:00",
    commit="c" * 40,
    dirty=False,
    machine={"cpu": "AMD EPYC (family 25, model 1)", "cores": 2, "memory_gib": 24, "isa": ["avx2"]},
    server={"label": "ours", "version": "", "dtype": "float32", "model": "m", "reference": True},
    scenario=SCENARIO,
    settings={"experiment": "lens"},
    rounds=[FIGURES],
)


class TestPage:
    """`docs/reference/experiments.md`."""

    def text(self, *rows):
        return "\n".join(page(rows))

    def test_without_rows_it_says_so_and_how_to_get_some(self):
        assert "No results are kept yet." in self.text()
        assert "benchmarks/experiments.py" in self.text()

    def test_an_experiment_is_a_line(self):
        line = "| Logit lens | 1,234 | 2.0e-05 | 3.0e-06 | 5.0e-01 | - | yes, beside 9 others |"
        assert line in self.text(ROW).splitlines()

    def test_a_failure_is_not_hidden(self):
        assert "| no, beside 9 others |" in self.text(replace(ROW, rounds=[FIGURES | {"same": 0.0}]))

    def test_the_newest_run_of_a_machine_is_shown(self):
        old = replace(ROW, run="0", date="2025-01-01T00:00:00+00:00")
        assert self.text(old, ROW) == self.text(ROW)

    def test_its_rows_are_not_on_the_page_of_performance(self):
        assert list(performance([ROW])) == list(performance([]))
