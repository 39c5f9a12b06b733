"""The engine's process: `python -m transom.engine.process FD OPTIONS`.

It talks over one inherited socket and holds nothing that cannot be rebuilt: when it dies, a new one given the
same sequences goes on with the same answers. When the server dies, the socket closes and the process ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

# Set before numba starts its threads: the OpenMP layer keeps them awake between layers, as torch does.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")

from transom.engine.gradients import Differentiator
from transom.engine.loader import load
from transom.engine.messages import (
    Abort,
    Differentiated,
    Ended,
    EngineOptions,
    Inbound,
    Outputs,
    Ready,
    Refused,
    Submit,
    SubmitProgram,
    Written,
    decode_inbound,
    encode,
)
from transom.engine.places import model_points
from transom.engine.tracing import TracingEngine
from transom.errors import ModelRefused

BEAT_SECONDS = 0.25
"""Shortest time between two `Stats` of an engine that steps."""


def main() -> None:
    """Load, report, and serve until the socket closes."""
    connection = Connection(int(sys.argv[1]))
    options = msgspec.json.decode(sys.argv[2], type=EngineOptions)
    inbox: SimpleQueue[Inbound] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    try:
        loaded = load(options)
    except ModelRefused as refusal:
        connection.send_bytes(encode(Refused(refusal.message)))
        return
    ready = Ready(loaded.profile, loaded.max_model_len, loaded.dimensions, model_points(loaded.places))
    connection.send_bytes(encode(ready))
    engine = TracingEngine(
        loaded.engine,
        loaded.lens,
        loaded.places.shapes,
        inbox,
        differentiator=Differentiator(Path(options.root), loaded.places.shapes),
        restarts=loaded.places.is_whole,
    )
    serve(engine, inbox, connection)


def _receive(connection: Connection, inbox: SimpleQueue[Inbound]) -> None:
    while True:
        try:
            frame = connection.recv_bytes()
        except (EOFError, OSError):
            # The server is gone, and with it everybody who could want an answer.
            os._exit(0)
        inbox.put(decode_inbound(frame))


def serve(engine: TracingEngine, inbox: SimpleQueue[Inbound], connection: Connection) -> None:
    """Step while there is work, sleep on the inbox while there is none.

    An error that comes out of a step ends the process: the engine has failed what it could tell apart, and
    nobody knows what the rest has left behind. The server starts another one, and finds out who it was.
    """
    pulse = _Pulse(engine, connection)
    while True:
        while engine.idle or not inbox.empty():
            if engine.idle and inbox.empty():
                pulse.beat()
            message = _next(engine, inbox, pulse)
            if isinstance(message, Written):
                if engine.written(message.traced):
                    connection.send_bytes(encode(Ended(message.traced)))
            else:
                _take(engine, message)
            pulse.stirred = True
        outputs, ends = engine.step()
        pulse.stirred = True
        if outputs:
            connection.send_bytes(encode(Outputs(outputs)))
        for traced in ends:
            connection.send_bytes(encode(Ended(traced)))
        if pulse.due:
            pulse.beat()


def _next(engine: TracingEngine, inbox: SimpleQueue[Inbound], pulse: _Pulse) -> Inbound:
    """The next message. While something is done beside the steps, the engine says that it lives."""
    while engine.is_busy_elsewhere:
        try:
            return inbox.get(timeout=BEAT_SECONDS)
        except Empty:
            pulse.stirred = True
            pulse.beat()
    return inbox.get()


class _Pulse:
    """Tells the server what the engine counted: that it lives, and how it does."""

    def __init__(self, engine: TracingEngine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._next = 0.0
        self.stirred = True
        """Whether anything has happened since it was told."""

    @property
    def due(self) -> bool:
        """Whether a beat would not be one too many."""
        return time.monotonic() >= self._next

    def beat(self) -> None:
        """Tell, unless all is as it was told."""
        if self.stirred:
            self._connection.send_bytes(encode(self._engine.stats()))
            self._next = time.monotonic() + BEAT_SECONDS
            self.stirred = False


def _take(engine: TracingEngine, message: Inbound) -> None:
    match message:
        case Submit(request, generated):
            engine.submit(request, generated)
        case SubmitProgram(program):
            engine.submit_program(program)
        case Differentiated():
            engine.take_gradients(message)
        case Abort(sequence_id):
            engine.abort(sequence_id)


if __name__ == "__main__":
    main()
