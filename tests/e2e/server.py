"""The real server, in a process of its own, with a data folder of its own and the real model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from transom.access.programme.programme import default_text

TRANSOM = Path(sys.executable).parent / "transom"
START_SECONDS = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """Starts, kills and restarts one server over one data folder."""

    def __init__(self, home: Path, models: Path, **settings: str) -> None:
        self.home = home
        (home / "models").symlink_to(models)
        programme = home / "programme.toml"
        if not programme.exists():
            # Tiny models have so few dimensions that a storm of logprobs tells them all.
            programme.write_text(default_text() + "\n[anonymous.quotas]\nreleased_rank = 1_000_000_000\n")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {"TRANSOM_HOME": str(home), "TRANSOM_PORT": str(self.port)}
        self.environment |= {f"TRANSOM_{name.upper()}": value for name, value in settings.items()}
        self.log = home / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> str:
        """Run `transom …` in this data folder; its standard output."""
        done = subprocess.run(
            [TRANSOM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout.strip()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([TRANSOM, "serve"], env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-3000:]}"
            try:
                if httpx2.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"the server was not ready in time:\n{self.log.read_text()[-3000:]}")

    @property
    def engine(self) -> int:
        """Process id of the only engine."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        engines = [
            int(c) for c in children if b"transom.engine.process" in Path(f"/proc/{c}/cmdline").read_bytes()
        ]
        assert len(engines) == 1
        return engines[0]

    def kill(self) -> None:
        """As the power going out, for the process: no handler runs."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has fetched."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
