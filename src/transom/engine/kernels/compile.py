"""The two ways kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_EXACT = {"nnan", "nsz"}
_FUSED = _EXACT | {"contract"}


def _compile(function: F, flags: set[str], *, parallel: bool) -> F:
    """Compile for this CPU, cached on disk.

    Of the fast-math flags, `nnan` with `nsz` let a maximum be taken in any order, which gives the same
    maximum, and `contract` lets a product and a sum round once. No sum is ever reordered.
    """
    compiled: F = numba.njit(
        function,
        parallel=parallel,
        fastmath=flags,
        nogil=True,
        cache=True,
        # Without the check for zero, which kernels do not meet, divisions run side by side.
        error_model="numpy",
    )
    return compiled


def parallel_kernel(function: F) -> F:
    """Compile a kernel whose `numba.prange` loop is shared among threads; iterations never communicate."""
    return _compile(function, _FUSED, parallel=True)


def inline(function: F) -> F:
    """Compile a helper of kernels. It gives a row the same bits wherever that one kernel calls it."""
    return _compile(function, _FUSED, parallel=False)


def exact_kernel(function: F) -> F:
    """Compile so that every operation rounds on its own, as IEEE 754 says.

    Then no choice of the compiler shows in the result, and a loop that runs in one thread and the same loop
    shared among threads (`exact_parallel_kernel`) give the same bits.
    """
    return _compile(function, _EXACT, parallel=False)


def exact_parallel_kernel(function: F) -> F:
    """`exact_kernel`, its `numba.prange` loop shared among threads."""
    return _compile(function, _EXACT, parallel=True)
