"""Beginning a sequence in the middle, at a layer and a position up to which another has computed the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from transom.internals.board import Floats

Pages: TypeAlias = "dict[int, tuple[NDArray[np.generic[Any]], NDArray[np.generic[Any]]]]"
"""Keys and values of some pages, by layer, as they lie in the cache."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Where a sequence begins, and what is known there."""

    layer: int
    position: int
    residual: Floats
    """[positions from there on, width]: what goes into that layer."""
    pages: Pages
    """Keys and values of what comes before the position. What a page holds beyond it is written over."""
