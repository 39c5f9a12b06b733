"""The server's end of an engine process: start it, talk to it, notice when it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Protocol

import msgspec

from transom.engine.messages import EngineOptions, Inbound, Outbound, decode_outbound, encode
from transom.engine.processor import environment

OnMessage = Callable[[Outbound], None]
OnExit = Callable[[int], None]

_SPIN_COUNT = "20000"
"""Turns of waiting before a thread sleeps. What more of them bring and cost: docs/howto/watch-a-server.md."""

_PATIENCE = 5.0
"""Seconds that an engine has to end when asked to; a stopped or stuck one does not hear."""


class EngineLink(Protocol):
    """What the server needs of an engine's process. Messages, then its exit, arrive in order on the loop."""

    def send(self, message: Inbound) -> None:
        """Send one message, without ever waiting; to a dead engine it is lost, and the exit tells."""
        ...

    def kill(self) -> None:
        """End the process at once, whatever state it is in; its exit is told as any other."""
        ...

    async def stop(self) -> None:
        """End the process, and wait until it is gone."""
        ...


StartEngine = Callable[[EngineOptions, OnMessage, OnExit], EngineLink]


class EngineProcess:
    """One engine process. Its messages, then its exit, arrive in order on the event loop that made it."""

    def __init__(self, options: EngineOptions, on_message: OnMessage, on_exit: OnExit) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_exit = on_exit
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                _command(theirs.fileno(), options),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the server, which lets running requests finish.
                start_new_session=True,
                env=_environment(options),
            )
        self._connection = Connection(ours.detach())
        self._outbox: SimpleQueue[Inbound | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"engine-{self.pid}-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"engine-{self.pid}-writer", daemon=True)
        self._reader.start()
        self._writer.start()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def send(self, message: Inbound) -> None:
        """Send one message; to a dead engine it is lost, and `on_exit` tells."""
        self._outbox.put(message)

    def kill(self) -> None:
        """SIGKILL, which a stopped process obeys too; `on_exit` tells."""
        self._process.kill()

    async def stop(self) -> None:
        """End the process, and wait until it is gone."""
        self._process.terminate()
        await asyncio.to_thread(self._reader.join, _PATIENCE)
        if self._reader.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._reader.join)

    def _write(self) -> None:
        # A thread of its own: the pipe to an engine that hangs fills up, and the loop must not wait for it.
        with suppress(OSError):
            while (message := self._outbox.get()) is not None:
                self._connection.send_bytes(encode(message))

    def _read(self) -> None:
        while True:
            try:
                message = decode_outbound(self._connection.recv_bytes())
            except (EOFError, OSError):
                break
            except msgspec.MsgspecError:
                # Whatever this is, it is no engine of ours any more.
                self._process.kill()
                break
            self._tell(self._on_message, message)
        code = self._wait()
        self._outbox.put(None)
        self._writer.join()
        self._connection.close()
        self._tell(self._on_exit, code)

    def _wait(self) -> int:
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            # It closed its end of the pipe, and did not manage to end.
            self._process.kill()
            return self._process.wait()

    def _tell(self, callback: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, argument)


def _command(descriptor: int, options: EngineOptions) -> list[str]:
    told = msgspec.json.encode(options).decode()
    return [sys.executable, "-m", "transom.engine.process", str(descriptor), told]


def _environment(options: EngineOptions) -> dict[str, str]:
    # How long a thread waits awake before it sleeps. Waking one takes longer than most loops of a step; but
    # one that waits awake on a core that somebody else needs holds everybody up.
    patience = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", _SPIN_COUNT)}
    # No hub, no telemetry: an engine reads its model root and nothing else.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | patience | offline | environment(options.processor)
