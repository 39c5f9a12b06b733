"""The one way kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = {"contract", "nnan", "nsz"}


def kernel(function: F, *, parallel: bool = False) -> F:
    """Compile for this CPU, cached on disk.

    Of the fast-math flags, `contract` lets a product and a sum fuse, alike for every row, and `nnan` with
    `nsz` let a maximum be taken in any order, which gives the same maximum. No sum is ever reordered.
    """
    compiled: F = numba.njit(function, parallel=parallel, fastmath=_FLAGS, nogil=True, cache=True)
    return compiled


def parallel_kernel(function: F) -> F:
    """Compile a kernel whose `numba.prange` loop is shared among threads; iterations never communicate."""
    return kernel(function, parallel=True)


def inline(function: F) -> F:
    """Compile a helper of kernels."""
    return kernel(function)
