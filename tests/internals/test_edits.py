"""The arithmetic of writes, against numpy in float64; and no row ever knows of those beside it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from transom.internals import edits

POSITIONS, GROUPS, WIDTH = 9, 2, 12
CHANCE = np.random.default_rng(5)
ROWS = CHANCE.standard_normal((POSITIONS, GROUPS, WIDTH)).astype(np.float32)
AT = np.arange(POSITIONS)
SHAPES = [(p, g, w) for p in (1, POSITIONS) for g in (1, GROUPS) for w in (1, WIDTH)]
DIRECTIONS = [(1, 1, WIDTH), (1, GROUPS, WIDTH)]

quickly = settings(max_examples=100, deadline=None)


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_replaced_is_the_value(shape):
    value = numbers(*shape)
    np.testing.assert_array_equal(edits.replace(value)(ROWS, AT), np.broadcast_to(value, ROWS.shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_added_is_scaled(shape):
    value = numbers(*shape)
    close(edits.add(value, -2.5)(ROWS, AT), ROWS.astype(np.float64) - 2.5 * value)


def unit_of(direction):
    wide = direction.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def component(rows, direction):
    return (rows.astype(np.float64) * unit_of(direction)).sum(-1)


@pytest.mark.parametrize("shape", DIRECTIONS, ids=str)
def test_a_clamped_component_is_what_it_was_set_to_and_nothing_else_changes(shape):
    direction = 3 * numbers(*shape)
    found = edits.set_component(direction, 1.5)(ROWS, AT)
    wanted = ROWS + (1.5 - component(ROWS, direction))[..., None] * unit_of(direction)
    close(found, wanted)
    close(component(found, direction).astype(np.float32), np.full((POSITIONS, GROUPS), 1.5))


@pytest.mark.parametrize("factor", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("shape", DIRECTIONS, ids=str)
def test_a_component_is_multiplied_and_by_nought_removed(shape, factor):
    direction = numbers(*shape)
    found = edits.scale_component(direction, factor)(ROWS, AT)
    close(found, ROWS + ((factor - 1) * component(ROWS, direction))[..., None] * unit_of(direction))
    close(component(found, direction).astype(np.float32), factor * component(ROWS, direction))


def test_along_nothing_nothing_changes():
    nothing = np.zeros((1, 1, WIDTH), np.float32)
    for edit in (edits.scale_component(nothing, 3.0), edits.set_component(nothing, 7.0)):
        np.testing.assert_array_equal(edit(ROWS, AT), ROWS)


def every_edit():
    value, direction = numbers(POSITIONS, GROUPS, WIDTH), numbers(1, 1, WIDTH)
    return {
        "set": edits.replace(value),
        "add": edits.add(value, 0.7),
        "clamp": edits.set_component(direction, 2.0),
        "scale_along": edits.scale_component(direction, -1.0),
        "noise": edits.noise(0.5, key=11, positions=np.arange(POSITIONS) * 3),
    }


@pytest.mark.parametrize("name", every_edit())
@quickly
@given(cuts=st.sets(st.integers(1, POSITIONS - 1)))
def test_a_row_does_not_depend_on_those_that_are_computed_beside_it(name, cuts):
    edit, ends = every_edit()[name], [0, *sorted(cuts), POSITIONS]
    parts = [edit(ROWS[a:b], AT[a:b]) for a, b in pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(parts), edit(ROWS, AT))


@quickly
@given(rows=arrays.arrays(np.float32, (4, 1, 300), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_component_is_summed_alike_in_wide_rows(rows):
    unit = edits._unit(numbers(1, 1, 300))
    whole = edits.components(rows, unit)
    alone = np.concatenate([edits.components(rows[i : i + 1], unit) for i in range(4)])
    np.testing.assert_array_equal(whole, alone)
    exact = (rows.astype(np.float64) * unit).sum(-1, keepdims=True)
    np.testing.assert_allclose(whole, exact, rtol=1e-6, atol=1e-2)


def noise(key=3, scale=1.0, positions=tuple(range(400)), width=101):
    zeros = np.zeros((len(positions), 1, width), np.float32)
    return edits.noise(scale, key, np.asarray(positions))(zeros, np.arange(len(positions)))


def test_noise_is_normal():
    drawn = noise().ravel().astype(np.float64)
    error = 4 / np.sqrt(drawn.size)
    assert abs(drawn.mean()) < error
    assert abs(drawn.std() - 1) < error
    assert abs((drawn**3).mean()) < 4 * error
    assert abs((drawn**4).mean() - 3) < 10 * error
    # A share of so many lies beyond each number of standard deviations.
    for far, share in ((1, 0.31731), (2, 0.0455), (3, 0.0027)):
        assert abs((np.abs(drawn) > far).mean() - share) < error


def test_noise_is_the_same_for_the_same_key_and_position_and_other_for_any_other():
    np.testing.assert_array_equal(noise(), noise())
    np.testing.assert_array_equal(noise(positions=(5, 9)), noise()[[5, 9]])
    np.testing.assert_array_equal(noise(scale=0.5), np.float32(0.5) * noise())
    assert not (noise(key=4) == noise()).any()
    rows = noise()[:, 0]
    assert len(np.unique(rows[:, 0])) == len(rows)
    correlation = np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(rows.size)


def test_values_too_large_for_float32_warn_nobody():
    huge = np.full((1, 1, 1), 3e38, np.float32)
    with np.errstate(all="ignore"):
        assert np.isinf(edits.add(huge, 1e12)(ROWS, AT)).all()
