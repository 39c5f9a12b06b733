"""Evidence that a log lies: two checkpoints, both signed by it, of which one log can have one only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from transom.tlog.durable import replace_file

MOST = 64
"""Contradictions of a log that are kept; who makes more has been found out."""


def keep_evidence(folder: Path, log: str, seen: str, shown: str) -> Path | None:
    """Keep a contradiction for people to look at, durably; where it is, None where there are too many.

    Args:
        folder: for the file.
        log: its name begins with this.
        seen: the checkpoint that was seen first, a signed note.
        shown: the one that contradicts it.
    """
    content = json.dumps({"seen": seen, "shown": shown}, ensure_ascii=False, indent=1).encode() + b"\n"
    path = folder / f"{log}-{hashlib.sha256(content).hexdigest()[:16]}.contradiction.json"
    if path.exists():
        return path
    if len(list(folder.glob(f"{log}-*.contradiction.json"))) >= MOST:
        return None
    replace_file(path, content)
    return path
