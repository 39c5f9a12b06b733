"""Other people's clients, each in a process of its own, from the environment of `scripts/install-clients`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-clients"
TASKS = Path(__file__).parent / "tasks"
SECONDS = 600


def run_client(program: str, *arguments: str, **variables: str) -> str:
    """Run a client's command in the folder of the tasks; its output, standard error included.

    Nothing of the caller's environment that could bend the client is passed on.
    """
    executable = ENVIRONMENT / "bin" / program
    if not executable.exists():
        pytest.fail(f"{program} is not installed; run scripts/install-clients")
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [executable, *arguments],
        cwd=TASKS,
        env=kept | {"HF_HUB_OFFLINE": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout
