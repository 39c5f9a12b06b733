"""The one way kernels are compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba

from transom.engine.kernels import target
from transom.engine.kernels.amx import HAS_AMX

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Where compiled kernels are kept: a folder for each state of the sources, and each processor.

    Numba compiles a function again when its own file has changed, and not when that of another has, which it
    calls and which is compiled into it. And two processes that compile for two processors at once could find
    each other's code in one folder: numba writes an index and then the code.
    """
    sources = Path(__file__).parent
    texts = b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))
    # What the system allows a process decides what is compiled, too.
    state = sha256(texts + bytes([HAS_AMX]) + target.describe().encode()).hexdigest()[:16]
    beside = sources / "__pycache__"
    if not os.access(beside if beside.exists() else sources, os.W_OK):
        beside = Path.home() / ".cache" / "transom"
    return str(beside / f"kernels-{state}")


numba.config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined]


def _compile(function: F, *, parallel: bool = False, counted: bool = True) -> F:
    # The option is private to numba, and its declarations do not know it.
    counting: dict[str, Any] = {"_nrt": counted}
    compiled: F = numba.njit(
        function,
        parallel=parallel,
        **counting,
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
    return _compile(function)


def uncounted_kernel(function: F) -> F:
    """`kernel`, for one that neither makes arrays nor returns any, as views are of others.

    The same holds for all that it calls, overloads too: an array that was made there would never be freed.

    No reference to an array is counted in it. Counting is an atomic operation, and one or two of them for
    each slice, and each tuple that an array is put into, take longer than a small tile.
    """
    return _compile(function, counted=False)


def parallel_kernel(function: F) -> F:
    """`kernel`, its `numba.prange` loop shared among threads; iterations never communicate."""
    return _compile(function, parallel=True)
