"""What the figures were measured on, and of which commit. No host names."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
"""Root of the repository."""

_SERVED = ("src", "pyproject.toml", "constraints.txt")
"""What a server's behaviour comes from."""

_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "bf16": {"avx512_bf16"},
    "amx": {"amx_tile"},
}


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and the instruction sets that matter for matrix products."""
    info = _cpu_info()
    return {
        "cpu": cpu_name(info),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30)),
        "isa": instruction_sets(info),
    }


def cpu_name(info: str) -> str:
    """The processor's name out of the text of `/proc/cpuinfo`, with family and model if it has them."""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", info, re.MULTILINE))
    name = " ".join(found.get("model name", platform.processor() or platform.machine()).split())
    if "cpu family" in found and "model" in found:
        return f"{name} (family {found['cpu family']}, model {found['model']})"
    return name


def instruction_sets(info: str) -> list[str]:
    """Which of avx2, avx512, vnni, bf16 and amx the text of `/proc/cpuinfo` names."""
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return [name for name, any_of in _FLAGS.items() if any_of & flags]


def describe_commit() -> dict[str, Any]:
    """The commit of this checkout, and whether what is served differs from it."""
    try:
        return {
            "commit": _git("rev-parse", "HEAD"),
            "dirty": bool(_git("status", "--porcelain", "--", *_SERVED)),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "", "dirty": True}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
