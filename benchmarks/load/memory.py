"""Whether the memory of processes grows, from samples of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import psutil

from benchmarks.load.figures import slope
from benchmarks.load.processes import MIB, tree

SETTLED_SECONDS = 300.0
"""Growth counts from here on: caches fill and pools are made before."""

MOST_GROWTH_PERCENT = 2.0
"""Growth that is still taken for none."""

Samples = Sequence[tuple[float, int]]
"""(seconds, bytes that are resident), in order."""


class MemoryLog:
    """Samples each process of a tree.

    Args:
        pid: root of the tree.
    """

    def __init__(self, pid: int) -> None:
        self.lost: list[int] = []
        """Processes that were gone before the end."""
        self._pid = pid
        self._names: dict[int, str] = {}
        self._samples: dict[int, list[tuple[float, int]]] = {}

    def sample(self, now: float) -> None:
        """Note what each process has resident.

        Args:
            now: seconds, from any beginning.
        """
        seen = set()
        for process in tree(self._pid):
            try:
                resident = process.memory_info().rss
                self._names.setdefault(process.pid, process.name())
            except psutil.Error:
                continue
            seen.add(process.pid)
            self._samples.setdefault(process.pid, []).append((now, resident))
        self.lost += [pid for pid in self._samples if pid not in seen and pid not in self.lost]

    def most_growth_percent(self) -> float | None:
        """The largest growth of any process, by either measure; None without samples."""
        both = [max(growth_percent(each)) for each in self._samples.values() if len(each) > 1]
        return max(both, default=None)

    def report(self) -> list[str]:
        """A line for each process."""
        found = ["", "memory      first     last      peak, MiB    growth: fit     last, %"]
        for pid, samples in self._samples.items():
            sizes = [size / MIB for _, size in samples]
            fit, last = growth_percent(samples)
            found.append(
                f"{self._names[pid]:<10} {sizes[0]:6.0f}   {sizes[-1]:6.0f}   {max(sizes):6.0f}"
                f"        {fit:+12.2f}   {last:+9.2f}" + ("  gone" if pid in self.lost else "")
            )
        return found


def growth_percent(samples: Samples) -> tuple[float, float]:
    """Growth after the first five minutes, or after half of a shorter time, in per cent.

    Returns:
        By the straight line that fits best, from its beginning to its end; and from the median of the first
        tenth of samples to that of the last tenth.
    """
    began, ended = samples[0][0], samples[-1][0]
    from_here = began + min(SETTLED_SECONDS, (ended - began) / 2)
    settled = [each for each in samples if each[0] >= from_here]
    sizes = [size for _, size in settled]
    tenth = max(1, len(sizes) // 10)
    first, last = median(sizes[:tenth]), median(sizes[-tenth:])
    by_line = slope(settled) * (settled[-1][0] - settled[0][0])
    return 100 * by_line / first, 100 * (last - first) / first
