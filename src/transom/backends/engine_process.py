"""The server's end of an engine process: start it, talk to it, notice when it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import msgspec

from transom.engine.messages import EngineOptions, Inbound, Outbound, decode_outbound, encode

OnMessage = Callable[[Outbound], None]
OnExit = Callable[[int], None]


class EngineProcess:
    """One engine process. Its messages, then its exit, arrive in order on the event loop that made it."""

    def __init__(self, options: EngineOptions, on_message: OnMessage, on_exit: OnExit) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_exit = on_exit
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "transom.engine.process", str(theirs.fileno()), _as_json(options)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the server, which lets running requests finish.
                start_new_session=True,
                env=_environment(),
            )
        self._connection = Connection(ours.detach())
        self._reader = threading.Thread(target=self._read, name=f"engine-{self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def send(self, message: Inbound) -> None:
        """Send one message; to a dead engine it is lost, and `on_exit` tells."""
        try:
            self._connection.send_bytes(encode(message))
        except OSError:
            return

    async def stop(self) -> None:
        """End the process, and wait until it is gone."""
        self._process.terminate()
        await asyncio.to_thread(self._reader.join)

    def _read(self) -> None:
        while True:
            try:
                frame = self._connection.recv_bytes()
            except (EOFError, OSError):
                break
            self._tell(self._on_message, decode_outbound(frame))
        self._connection.close()
        self._tell(self._on_exit, self._process.wait())

    def _tell(self, callback: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, argument)


def _as_json(options: EngineOptions) -> str:
    return msgspec.json.encode(options).decode()


def _environment() -> dict[str, str]:
    # Threads of OpenMP that wait by spinning bring everything to a crawl where cores are shared with others:
    # waiting in the kernel costs microseconds a layer. An operator with cores to spare may set it higher.
    patience = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "2000")}
    # No hub, no telemetry: an engine reads its model root and nothing else.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | patience | offline
