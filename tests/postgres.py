"""A PostgreSQL server of the tests' own: fresh, on a free port of the loopback interface, gone at the end."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

PATIENCE = 30.0
_PR_SET_PDEATHSIG = 1
_DURABLE_ENOUGH = {
    # The tests kill gateways and cut connections; they do not pull the plug.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "120",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`, if PostgreSQL is installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return versions[-1].parent if versions else None


@dataclass
class Cluster:
    """A running server, and its databases."""

    folder: Path
    port: int
    bin: Path
    process: subprocess.Popen[bytes] | None = None
    _names: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://transom@127.0.0.1:{self.port}/{database}"

    def create(self, template: str | None = None) -> str:
        """URL of a new database: an empty one, or a copy."""
        name = f"transom{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return self.url(name)

    def execute(self, statement: str) -> list[str]:
        """The first column of what it answers."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(text(statement))
                return list(result.scalars()) if result.returns_rows else []
        finally:
            engine.dispose()

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            **_DURABLE_ENOUGH,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_tests,  # noqa: PLW1509 - it calls one function of the C library
                **_unprivileged(),
            )
        self._wait()

    def stop(self) -> None:
        """As a crash would: connections are cut, and nothing is tidied up."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(PATIENCE)
            self.process = None

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server, from its making to its end."""
    folder = Path(tempfile.mkdtemp(prefix="transom-postgres-"))
    made = Cluster(folder, _free_port(), programs())
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        (folder / "log").touch()
        subprocess.run(
            [made.bin / "initdb", "-D", folder / "data", "-U", "transom", "-A", "trust", "-N", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            **_unprivileged(),
        )
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def _die_with_the_tests() -> None:
    """Linux sends this to the child when its parent is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
