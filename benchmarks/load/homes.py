"""A server of our own over a home folder, for as long as it is needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.processes import StartedServer

TRANSOM = Path(sys.executable).parent / "transom"

START_SECONDS = 900


@contextmanager
def serving_home(home: Path, port: int, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Start a server, and end it; (address, key of the operator) once it is ready.

    Raises:
        TimeoutError: it was not ready in time.
    """
    keys, log = home / "welcome.env", home / "server.log"
    keys.unlink(missing_ok=True)
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    server = StartedServer(
        f"env TRANSOM_HOME={home} {settings} {TRANSOM} serve --port {port} --welcome --env-file {keys}", log
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not keys.exists():
            server.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server was not ready in time; see {log}")
            time.sleep(0.5)
        found = dict(line.removeprefix("export ").split("=", 1) for line in keys.read_text().splitlines())
        yield f"http://127.0.0.1:{port}", found["OPENAI_API_KEY"].strip("'\"")
    finally:
        server.stop()
