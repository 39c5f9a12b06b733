"""A row of a benchmark that measures our own server alone, beside no other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from benchmarks.load.figures import Figures
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.rows import Row


def own_row(
    scenario: str,
    model: str,
    dtype: str,
    settings: dict[str, Any],
    rounds: list[Figures],
    run: str = "%Y%m%dT%H%M%SZ",
) -> Row:
    """The row, of now and of this machine and commit.

    Args:
        scenario: what was measured.
        model: by its name.
        dtype: number format of the server.
        settings: of the scenario.
        rounds: figures of each.
        run: how the time of now names the run: rows of the same name were measured in turn.
    """
    now = datetime.now(UTC)
    return Row(
        run=f"{now:{run}}",
        date=now.isoformat(timespec="seconds"),
        **describe_commit(),
        machine=describe_machine(),
        server={"label": "ours", "version": "", "dtype": dtype, "model": model, "reference": True},
        scenario=scenario,
        settings=settings,
        rounds=rounds,
    )
