"""The arithmetic of writes: what becomes of rows at a place.

Each row is computed on its own and in one order, whatever rows are computed beside it, so that a chunk's
boundaries never show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from transom.internals.board import Floats

Edit: TypeAlias = Callable[[Floats, "NDArray[np.intp]"], Floats]
"""From rows [rows, groups, width] and the place of each among the written positions, to the same."""

_TWO_PI = 2 * math.pi


def replace(value: Floats) -> Edit:
    """Become `value`, [positions or 1, groups or 1, width or 1]."""
    return lambda rows, at: np.broadcast_to(_of(value, at), rows.shape)


def add(value: Floats, scale: float) -> Edit:
    """Add `value` times `scale`; see `replace`."""
    # Where that is too large for a float32, the write is found to be excessive.
    with np.errstate(over="ignore"):
        scaled = value * np.float32(scale)
    return lambda rows, at: rows + _of(scaled, at)


def set_component(direction: Floats, target: float) -> Edit:
    """The component along a direction, [1, groups or 1, width], becomes `target`."""
    unit = _unit(direction)

    def edit(rows: Floats, _at: NDArray[np.intp]) -> Floats:
        return rows + (np.float32(target) - components(rows, unit)) * unit

    return edit


def scale_component(direction: Floats, scale: float) -> Edit:
    """The component along a direction is multiplied; by 0, it is removed."""
    unit = _unit(direction)
    factor = np.float32(scale) - np.float32(1)

    def edit(rows: Floats, _at: NDArray[np.intp]) -> Floats:
        return rows + factor * components(rows, unit) * unit

    return edit


def noise(scale: float, key: int, positions: NDArray[np.int64]) -> Edit:
    """Add Gaussian noise of standard deviation `scale`, a function of key, position, group and unit alone.

    Args:
        scale: standard deviation.
        key: 128 bits.
        positions: in the sequence, of each written position.
    """

    def edit(rows: Floats, at: NDArray[np.intp]) -> Floats:
        drawn = [_gaussian(key, int(positions[i]), rows[0].size) for i in at]
        return rows + np.float32(scale) * np.stack(drawn).reshape(rows.shape)

    return edit


def components(rows: Floats, unit: Floats) -> Floats:
    """[rows, groups, width] along unit vectors [1, groups or 1, width]: [rows, groups, 1].

    Summed in float64, row by row: `numpy` adds along the last axis of each row in the same order however many
    rows there are.
    """
    products = np.ascontiguousarray(rows, np.float64) * unit
    found: Floats = products.sum(axis=-1, keepdims=True).astype(np.float32)
    return found


def _of(value: Floats, at: NDArray[np.intp]) -> Floats:
    return value if value.shape[0] == 1 else value[at]


def _unit(direction: Floats) -> Floats:
    length = np.sqrt(np.square(direction, dtype=np.float64).sum(axis=-1, keepdims=True))
    found: Floats = (direction / np.where(length == 0, 1, length)).astype(np.float32)
    return found


def _gaussian(key: int, position: int, count: int) -> Floats:
    """Normal numbers by the counter (Salmon et al. 2011; Box and Muller 1958)."""
    half = (count + 1) // 2
    raw = np.random.Philox(key=key, counter=position << 128).random_raw(2 * half)
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2 * np.log1p(-uniform[:half]))
    angle = _TWO_PI * uniform[half:]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return both[:count].astype(np.float32)
