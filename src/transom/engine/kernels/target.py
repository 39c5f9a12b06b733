"""The processor that kernels are compiled for: numba's target, which may have less than the one at hand."""

from __future__ import annotations

import llvmlite.binding
import numba

HOST: dict[str, bool] = dict(llvmlite.binding.get_host_cpu_features())
"""Whether the processor at hand has each of the features that LLVM knows."""


def _features() -> frozenset[str]:
    """Those that numba may use; see its NUMBA_CPU_FEATURES."""
    named: str | None = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    if named is None:
        return frozenset(feature for feature, has in HOST.items() if has)
    return frozenset(each[1:] for each in named.split(",") if each.startswith("+"))


FEATURES = _features()


def describe() -> str:
    """The target in words: the processor at hand with what it has, and what is computed for if it is less."""
    host = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    name, features = numba.config.CPU_NAME, numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    return host if name is features is None else f"{host}; for {name} {features}"
