"""Measure OpenAI-compatible servers side by side: `python benchmarks/serve.py compare --help`."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a file: the package is found from the root of the repository.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
