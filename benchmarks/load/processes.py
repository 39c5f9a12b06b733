"""Processes of a server: starting and ending one, its memory, and the time it takes from the others."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

MIB = 1 << 20


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty where it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants have resident; shared pages count for each."""
    total = 0
    for process in tree(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process and its descendants have used, those that ended included."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class PeakMemory:
    """Samples the memory of process trees, in a thread, while it is entered.

    Args:
        pids: roots of the trees.
        every: seconds between two samples.
    """

    def __init__(self, pids: Iterable[int], every: float = 0.5) -> None:
        self.peak = dict.fromkeys(pids, 0)
        """Most bytes that each tree had resident."""
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for pid, before in self.peak.items():
                self.peak[pid] = max(before, resident(pid))
            if self._stop.wait(self._every):
                return


class StartedServer:
    """A server that was started here, by a shell command, and is ended here.

    Args:
        command: for `bash -c`.
        log: file that gets its output.
    """

    def __init__(self, command: str, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._log = log

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    def check(self) -> None:
        """See that it is still there.

        Raises:
            ChildProcessError: it has ended.
        """
        if (code := self._process.poll()) is not None:
            raise ChildProcessError(f"the server ended with {code}; see {self._log}")

    def stop(self, patience: float = 30.0) -> None:
        """End it and all that descends from it; what is there after `patience` seconds is killed."""
        family = tree(self.pid)
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=patience)
        for process in left:
            process.kill()
        self._process.wait()
