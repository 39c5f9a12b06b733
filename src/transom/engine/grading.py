"""Gradients beside the step loop: one run after the other, in a thread of their own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from transom.engine.gradients import Differentiator
from transom.engine.messages import Differentiated
from transom.internals.values import Value
from transom.schema.program import RunSpec

_NICE = 10
"""Beside the step loop, the thread gets about a tenth of a processor, and all of one that is idle."""


def _give_way() -> None:
    """Lower the priority of this thread, and of those that it will start to compute with.

    Where gradients had an equal part of the processors, each step beside them would take twice as long.
    """
    if sys.platform == "linux":  # elsewhere it would be that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Gradients:
    """Hands runs to the thread, and keeps what came of them until it is fetched.

    Args:
        differentiator: computes them; only the thread calls it.
        tell: is told when one is done, from that thread.
    """

    def __init__(self, differentiator: Differentiator, tell: Callable[[Differentiated], None]) -> None:
        self._differentiator = differentiator
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gradients", initializer=_give_way)
        self._found: dict[tuple[str, str], dict[str, Value]] = {}
        self._begun: set[tuple[str, str]] = set()
        self._unwanted: set[tuple[str, str]] = set()

    @property
    def busy(self) -> bool:
        """Whether anything is computed, and not fetched."""
        return bool(self._begun)

    def begin(self, trace_id: str, run: RunSpec, values: Mapping[str, Value]) -> None:
        """Compute the gradients of a run; `values` may grow meanwhile."""
        self._begun.add((trace_id, run.name))
        self._thread.submit(self._compute, trace_id, run, dict(values))

    def take(self, message: Differentiated) -> dict[str, Value]:
        """What a message speaks of; empty where it tells of an error."""
        key = message.trace_id, message.run
        self._begun.discard(key)
        self._unwanted.discard(key)
        return self._found.pop(key, {})

    def forget(self, trace_id: str) -> None:
        """Nobody waits for the gradients of a program any more; no forward begins for them."""
        self._unwanted |= {key for key in self._begun if key[0] == trace_id}

    def _compute(self, trace_id: str, run: RunSpec, values: Mapping[str, Value]) -> None:
        key = trace_id, run.name
        try:
            self._found[key] = self._differentiator.gradients(run, values, lambda: key not in self._unwanted)
        except Exception as error:  # noqa: BLE001  # whoever waits must hear of it
            self._tell(Differentiated(trace_id, run.name, str(error) or type(error).__name__))
        else:
            self._tell(Differentiated(trace_id, run.name))
