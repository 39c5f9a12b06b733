"""The one way kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _compile(function: F, *, parallel: bool) -> F:
    compiled: F = numba.njit(
        function,
        parallel=parallel,
        # A maximum may be taken in any order, which gives the same maximum. Nothing else is allowed.
        fastmath={"nnan", "nsz"},
        nogil=True,
        cache=True,
        # Without the check for zero, which kernels do not meet, divisions run side by side.
        error_model="numpy",
    )
    return compiled


def kernel(function: F) -> F:
    """Compile for this CPU, cached on disk.

    Every operation rounds on its own, as IEEE 754 says, and no sum is reordered. Then no choice of the
    compiler shows in the result, and a loop that runs in one thread and the same loop shared among threads
    (`parallel_kernel`) give the same bits.
    """
    return _compile(function, parallel=False)


def parallel_kernel(function: F) -> F:
    """`kernel`, its `numba.prange` loop shared among threads; iterations never communicate."""
    return _compile(function, parallel=True)
