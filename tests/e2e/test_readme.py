"""What README, tutorial and the page on measures tell people to run is run, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks

pytestmark = pytest.mark.e2e

TUTORIALS = ROOT / "docs" / "tutorial"
PAGES = [
    ROOT / "README.md",
    # Blocks of `inside.md` go on where those before them ended; `test_looking.py` runs them as one.
    *sorted(set(TUTORIALS.glob("*.md")) - {TUTORIALS / "inside.md"}),
    ROOT / "docs" / "reference" / "measures.md",
]
NOT_RUN = ("scripts/serve", "scripts/test", "git clone")
"""Commands that would begin everything anew; the fixture, and whoever runs this, did them."""


def to_run() -> list[Block]:
    found = [block for page in PAGES for block in blocks(page)]
    shell = [b for b in found if b.language == "bash" and not any(command in b.text for command in NOT_RUN)]
    return [b for b in found if b.language == "python"] + shell


@pytest.fixture(scope="module")
def environment(server, key):
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TRANSOM_BASE_URL": server.url,
        "TRANSOM_API_KEY": key,
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": key,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def asked_before(environment):
    """Some block may read the newest record: it is one of a chat, whatever block ran before."""
    program = "from transom import Client\nwith Client() as client:\n    client.chat('Hello', max_tokens=2)"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


@pytest.mark.parametrize("block", to_run(), ids=lambda block: block.name)
def test_a_block_runs(block, environment, asked_before, server, tmp_path):
    text = block.text.replace("127.0.0.1:8600", f"127.0.0.1:{server.port}")
    program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*program, text],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "a block in the documentation shows something"
