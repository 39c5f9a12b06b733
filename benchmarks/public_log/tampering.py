"""One byte at a time is changed in what proves something; each change has to be noticed."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.public_log.evidence import Evidence
from transom.tlog.files import CHECKPOINT
from transom.tlog.tiles import ENTRIES, tiles_between

Place = tuple[Path, int, int]
"""A file, and bytes start .. end of it."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    tried: Counter[str] = field(default_factory=Counter)
    """Changes, by kind of file or part of one."""
    missed: list[str] = field(default_factory=list)
    """Those that nobody noticed."""


def tamper(evidence: Evidence, times: int, seed: int, tell: Callable[[str], object] = str) -> Outcome:
    """Change a random byte into another random one, look, and set it back; `times` in all.

    Args:
        evidence: its files are changed, and are as they were at the end.
        times: each kind of file and part in turn.
        seed: what is drawn.
        tell: told of each change that went unnoticed.
    """
    chance, outcome = random.Random(seed), Outcome()
    kinds = places(evidence)
    for number in range(times):
        kind = list(kinds)[number % len(kinds)]
        path, start, end = chance.choice(kinds[kind])
        whole = path.read_bytes()
        place = chance.randrange(start, end)
        new = whole[place] ^ chance.randrange(1, 256)
        path.write_bytes(whole[:place] + bytes([new]) + whole[place + 1 :])
        try:
            noticed = next(evidence.faults(path), None)
        finally:
            path.write_bytes(whole)
        outcome.tried[kind] += 1
        if noticed is None:
            outcome.missed.append(
                f"{kind}: byte {place} of {path.name}: {whole[place]:#04x} became {new:#04x}"
            )
            tell(outcome.missed[-1])
    return outcome


def places(evidence: Evidence) -> dict[str, list[Place]]:
    """Where bytes are changed, by kind."""
    log = evidence.log
    size = log.checkpoint().size
    kinds: dict[str, list[Place]] = {
        "tiles": [],
        "entries": [],
        "checkpoint": [_whole(log.folder / CHECKPOINT)],
    }
    for tile in tiles_between(0, size):
        kinds["entries" if tile.level == ENTRIES else "tiles"].append(_whole(log.folder / tile.path))
    kinds["receipt"] = [_whole(evidence.receipt)]
    kinds["record"] = [_whole(evidence.record)]
    return kinds | {f"record: {name}": [place] for name, place in _parts(evidence.record)}


def _whole(path: Path) -> Place:
    return path, 0, path.stat().st_size


def _parts(path: Path) -> Iterator[tuple[str, Place]]:
    content = path.read_bytes()
    parsed = json.loads(content)
    envelope = parsed["envelope"]
    parts = {"payload": envelope["payload"], "signature": envelope["signatures"][0]["sig"]}
    parts["openings"] = json.dumps(parsed["openings"], ensure_ascii=False, separators=(",", ":"))
    for name, text in parts.items():
        # Numbers may be spelled otherwise here than in the file; their number of characters matters little.
        start = content.index(b'"openings":') + 11 if name == "openings" else content.index(text.encode())
        yield name, (path, start, min(start + len(text.encode()), len(content)))
