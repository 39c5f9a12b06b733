"""Server-sent events, out of parts of a body that were cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DONE = b"[DONE]"
"""Data of the event that ends a stream of OpenAI's."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event and the moment its last byte came, in seconds of `time.perf_counter`."""

    at: float
    data: bytes
    kind: str = "message"

    def json(self) -> Any:
        """The data as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.data)


def read_events(parts: Iterable[tuple[float, bytes]]) -> list[Event]:
    """The events of a body that came in parts.

    Comments and events without data are left out, and so is an event that was never finished.
    """
    events: list[Event] = []
    data: list[bytes] = []
    kind, rest = "message", b""
    for at, part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r")
            name, _, value = line.partition(b":")
            if not line:
                if data:
                    events.append(Event(at, b"\n".join(data), kind))
                kind, data = "message", []
            elif name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                kind = value.strip().decode(errors="replace")
    return events
