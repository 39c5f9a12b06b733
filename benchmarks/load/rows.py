"""Rows of results: one JSON object on a line for each server, scenario and setting of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load.figures import Figures, medians

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Folder of the files of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one server did in one setting of one scenario."""

    run: str
    """Rows of the same run were measured in turn with each other, and may be compared."""
    date: str
    """ISO 8601, UTC, when the run began."""
    commit: str
    dirty: bool
    """Whether `src` or the pinned versions differed from the commit."""
    machine: dict[str, Any]
    """cpu, cores, memory_gib, isa."""
    server: dict[str, Any]
    """label, version, dtype, model; `reference` for the one that others are compared with."""
    scenario: str
    settings: dict[str, Any]
    rounds: list[Figures]
    """Figures of each round, in order."""
    median: Figures = field(default_factory=dict)

    @classmethod
    def read(cls, line: str) -> Row:
        """A row from its line.

        Raises:
            ValueError: it is none.
        """
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"not a row of results: {error}") from error

    def line(self) -> str:
        """The row on a line, with the medians of its rounds."""
        return json.dumps(asdict(self) | {"median": medians(self.rounds)}, allow_nan=False)


def file_name(date: str, machine: Mapping[str, Any]) -> str:
    """Name of the file for rows of a day and a machine: `YYYY-MM-DD-processor.jsonl`."""
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-")
    return f"{date[:10]}-{slug}-{machine['cores']}c.jsonl"


def append(rows: Iterable[Row], folder: Path = RESULTS) -> Path | None:
    """Append rows to the file of their day and machine; None where there is no row."""
    path: Path | None = None
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        path = folder / file_name(row.date, row.machine)
        with path.open("a", encoding="utf-8") as file:
            file.write(row.line() + "\n")
    return path


def read_all(folder: Path = RESULTS) -> list[Row]:
    """Every row of a folder, the oldest first."""
    lines = [
        line
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return sorted(map(Row.read, lines), key=lambda row: row.date)
