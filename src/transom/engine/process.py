"""The engine's process: `python -m transom.engine.process FD OPTIONS`.

It talks over one inherited socket and holds nothing that cannot be rebuilt: when it dies, a new one given the
same sequences goes on with the same answers. When the server dies, the socket closes and the process ends.
"""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

import msgspec

# Set before numba starts its threads: the OpenMP layer keeps them awake between layers, as torch does.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")

from transom.engine.core import Engine
from transom.engine.loader import load
from transom.engine.messages import (
    Abort,
    EngineOptions,
    Inbound,
    Output,
    Outputs,
    Ready,
    Refused,
    Submit,
    decode_inbound,
    encode,
)
from transom.errors import ModelRefused


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
    connection.send_bytes(encode(Ready(loaded.profile, loaded.max_model_len)))
    serve(loaded.engine, inbox, connection)


def _receive(connection: Connection, inbox: SimpleQueue[Inbound]) -> None:
    while True:
        try:
            frame = connection.recv_bytes()
        except (EOFError, OSError):
            # The server is gone, and with it everybody who could want an answer.
            os._exit(0)
        inbox.put(decode_inbound(frame))


def serve(engine: Engine, inbox: SimpleQueue[Inbound], connection: Connection) -> None:
    """Step while there is work, sleep on the inbox while there is none."""
    while True:
        while engine.idle or not inbox.empty():
            _take(engine, inbox.get())
        outputs = _step(engine)
        if outputs:
            connection.send_bytes(encode(Outputs(outputs)))


def _take(engine: Engine, message: Inbound) -> None:
    match message:
        case Submit(request, generated):
            engine.submit(request, generated)
        case Abort(sequence_id):
            engine.abort(sequence_id)


def _step(engine: Engine) -> list[Output]:
    try:
        return engine.step()
    except Exception as error:  # noqa: BLE001  # whatever broke, everyone who waits must hear of it
        return engine.fail_all(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
