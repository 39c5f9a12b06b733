"""Running the server: uvicorn, our logs, and an exit code that says how it ended."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from transom.app import create_app
from transom.cli.logs import configure_logs
from transom.cli.welcome import Welcome
from transom.config import Settings
from transom.errors import TransomError

_LAST_BYTES_SECONDS = 5
"""How long a client may take to read the end of what was answered, once nothing runs any more."""

_TICK = 0.1

_YOUNG_OBJECTS = 10_000
"""Objects that are made, and not freed, before the collector looks at the youngest."""


def run(settings: Settings, *, welcome: bool = False, env_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: the server's.
        welcome: whether to show, once it is up, that it works.
        env_file: see `Welcome`.

    Raises:
        TransomError: a model could not be served, or the welcome failed; the server was ended for it.
    """
    configure_logs(settings.log_level)
    failures: list[TransomError] = []

    def end(failure: TransomError) -> None:
        failures.append(failure)
        server.should_exit = True

    server = Server(settings, create_app(settings, on_refusal=end))
    if welcome:
        Welcome(settings, env_file, on_failure=end).start()
    # uvicorn raises the signal again once it has ended in order; that is status 0, and not a violent death.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    if failures:
        raise failures[0]


class Server(uvicorn.Server):
    """uvicorn, which lets running answers finish before it closes its doors.

    While it drains it still listens: whoever asks is told so, by a 503 that ends the connection.
    """

    def __init__(self, settings: Settings, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
            )
        )
        self._app = app
        self._seconds = settings.shutdown_seconds
        self._settled = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT; a second SIGINT ends it at once."""
        super().handle_exit(sig, frame)
        if self.started:
            # In the handler and not a tick later: from now on nothing new is taken.
            self._app.state.house.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Each tenth of a second: once every model is up, leave what is there by then to itself."""
        if not self._settled and all(backend.ready for backend in self._app.state.house.backends.values()):
            self._settled = True
            settle_memory()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close."""
        draining = asyncio.create_task(self._app.state.house.drain(self._seconds))
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=_TICK)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await super().shutdown(sockets)


def settle_memory() -> None:
    """Take what lives now for what lives as long as the process.

    The collector would look through all of it again every few hundred requests, and let them wait for a tenth
    of a second; and for new cycles every seven hundred objects, which is a handful of requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
