"""Silence is a hang: notices an engine that has work to do and says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICKS = 8
"""Looks within the time allowed. A server that was itself stopped for an hour finds one tick of silence when
it goes on, and not an hour of it."""


class Watchdog:
    """Calls `on_silence` once nothing was heard for `seconds` while it watches. Lives on the event loop."""

    def __init__(self, seconds: float, on_silence: Callable[[], None]) -> None:
        self._pause = seconds / _TICKS
        self._on_silence = on_silence
        self._quiet = 0
        self._next: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """There is work to do: silence counts from now on. Does nothing where it counts already."""
        if self._next is None:
            self._quiet = 0
            self._wait()

    def heard(self) -> None:
        """Something was said."""
        self._quiet = 0

    def rest(self) -> None:
        """There is no work, or no engine: silence means nothing."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _wait(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        self._quiet += 1
        if self._quiet < _TICKS:
            self._wait()
        else:
            self._next = None
            self._on_silence()
