"""Which processor an engine computes for: the one at hand, or one that has no more than a level names.

A level is of the x86-64 psABI. An engine for `x86-64-v3` uses no AVX-512 and no AMX where the machine has
them: what a machine without them would answer can be tried, and calibrated, before one is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

HOST = "host"

_V3 = (
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "sahf", "xsave",
    "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe",
)  # fmt: skip
_V4 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


_BEYOND = "AVX512_ICL AVX512_SPR"


@dataclass(frozen=True, slots=True)
class _Level:
    features: tuple[str, ...]
    """As LLVM names them."""
    libraries: str
    """Instruction set that torch and the libraries below it may use, as they name it."""
    beyond: str
    """What numpy has code for and the level has not, as numpy names it."""


_LEVELS: Mapping[str, _Level] = {
    "x86-64-v3": _Level(_V3, "AVX2", f"X86_V4 {_BEYOND}"),
    "x86-64-v4": _Level((*_V3, *_V4), "AVX512", _BEYOND),
}


PROCESSORS = (HOST, *_LEVELS)


def environment(processor: str) -> dict[str, str]:
    """Variables that make numba, torch, MKL, oneDNN and numpy compute for a processor.

    They are read when these are imported.

    Raises:
        KeyError: there is no such level.
    """
    if processor == HOST:
        return {}
    level = _LEVELS[processor]
    one_dnn = {"AVX2": "AVX2", "AVX512": "AVX512_CORE"}[level.libraries]
    return {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in level.features),
        "ATEN_CPU_CAPABILITY": level.libraries.lower(),
        "MKL_ENABLE_INSTRUCTIONS": level.libraries,
        "ONEDNN_MAX_CPU_ISA": one_dnn,
        "NPY_DISABLE_CPU_FEATURES": level.beyond,
    }


def lacking(processor: str, features: Mapping[str, bool]) -> Iterator[str]:
    """What a machine with `features` does not have of a processor.

    Raises:
        KeyError: there is no such level.
    """
    if processor != HOST:
        yield from (feature for feature in _LEVELS[processor].features if not features.get(feature))
