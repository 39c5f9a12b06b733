"""Twelve experiments inside a model: by plans over HTTP, and by plain PyTorch on the same weights.

    OPENAI_API_KEY=… python benchmarks/experiments.py --base-url http://127.0.0.1:8600/v1 \\
        --model-root .transom/models/smollm2-135m-instruct --exact --keep

Each is done alone, and then all of them at once beside others. Prints a table; with --keep rows are kept.
Ends with 1 if anything differs by more than it may.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

# Threads that wait must not spin where a server computes beside them; read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.equality.asking import Server
from benchmarks.equality.outcome import Outcome, failures, measure
from benchmarks.equality.page import table
from benchmarks.equality.plain import Plain
from benchmarks.equality.words import SCENARIO
from benchmarks.load.figures import Figures
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.rows import RESULTS, Row, append


def main(arguments: Sequence[str]) -> int:
    """Do the experiments, print, and keep."""
    options = _parse(arguments)
    exact = Plain(options.model_root, exact=True) if options.exact else None
    with Server(options.base_url.removesuffix("/v1"), options.key) as server:
        outcomes = measure(server, Plain(options.model_root), exact)
    rows = list(_rows(outcomes, server.model))
    print("\n".join(table(rows)))
    for key in failures(outcomes):
        print(f"{key} is not what it must be", file=sys.stderr)
    if options.keep:
        append(rows, RESULTS)
    return 1 if failures(outcomes) else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/experiments.py", description="Experiments inside a model, beside plain PyTorch."
    )
    add = parser.add_argument
    add("--base-url", default=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--key", default=os.environ.get("OPENAI_API_KEY"), help="else OPENAI_API_KEY")
    add("--model-root", type=Path, required=True, help="of the model that the server serves in float32")
    add("--exact", action="store_true", help="also compare both with the model in float64")
    add("--keep", action="store_true", help="append the rows to benchmarks/results")
    return parser.parse_args(arguments)


def _rows(outcomes: Sequence[Outcome], model: str) -> Iterator[Row]:
    now = datetime.now(UTC)
    commit, machine = describe_commit(), describe_machine()
    for outcome in outcomes:
        yield Row(
            run=f"{now:%Y%m%dT%H%M%SZ}",
            date=now.isoformat(timespec="seconds"),
            commit=commit["commit"],
            dirty=commit["dirty"],
            machine=machine,
            server={"label": "ours", "version": "", "dtype": "float32", "model": model, "reference": True},
            scenario=SCENARIO,
            settings={"experiment": outcome.key},
            rounds=[_figures(outcome)],
        )


def _figures(outcome: Outcome) -> Figures:
    difference = outcome.difference
    found: Figures = {
        "numbers": difference.numbers,
        "largest": difference.largest,
        "scaled": difference.scaled,
        "absolute": difference.absolute,
        "same": float(outcome.is_same),
        "company": outcome.company,
    }
    if outcome.from_exact is not None:
        ours, plain = outcome.from_exact
        found |= {"scaled_exact": ours.scaled, "plain_scaled_exact": plain.scaled}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
