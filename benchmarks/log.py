"""How the public log grows: appending, proving and verifying, from 10^4 to 10^6 entries; and what is noticed.

    python benchmarks/log.py --keep

Entries go through the real writer, in growths of realistic sizes, with every file and folder synced. Then
random entries and sizes are proven and verified, every file is checked, other people's programs read the log,
and single bytes are changed in all that proves something. Ends with 1 if a change was not noticed, or a
program of others did not accept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.figures import Figures
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.table import lines
from benchmarks.public_log import strangers
from benchmarks.public_log.evidence import make_evidence
from benchmarks.public_log.growth import GrownLog
from benchmarks.public_log.tampering import Outcome, tamper

SIZES = (10_000, 100_000, 1_000_000)
GROWTHS = (256, 4096)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep the rows where that was asked for."""
    options = _parse(arguments)
    now = datetime.now(UTC)
    accepted = True
    for growth in options.growths:
        for size in options.sizes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                log = GrownLog(Path(folder), size, growth, options.seed)
                figures = _measure(log, options)
                accepted = accepted and (growth != options.growths[0] or _read_by_others(log, options))
            _tell(_row(now, "log", {"entries": size, "growth": growth}, figures), keep=options.keep)
    outcome = _tamper(options)
    figures = {f"changed_in_{kind.replace(': ', '_')}": float(n) for kind, n in outcome.tried.items()}
    totals = {"changed": float(sum(outcome.tried.values())), "unnoticed": float(len(outcome.missed))}
    _tell(_row(now, "log_tampering", {"entries": options.tampered_size}, totals | figures), keep=options.keep)
    return 0 if accepted and not outcome.missed else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/log.py", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=SIZES, help="entries of the logs")
    add("--growths", type=int, nargs="+", default=GROWTHS, help="entries of a checkpoint, on average")
    add("--inclusions", type=int, default=10_000, help="entries that are proven at each size")
    add("--consistencies", type=int, default=1_000, help="pairs of sizes that are proven at each size")
    add("--others", type=int, default=100, help="proofs that other people's programs verify")
    add("--python", type=Path, default=Path(sys.executable), help="of an environment with those programs")
    add("--tamper", type=int, default=1_000, help="bytes that are changed, one at a time")
    add("--tampered-size", type=int, default=66_000, help="entries of the log in which they are")
    add("--folder", type=Path, help="on the disk that is measured; else that of temporary files")
    add("--seed", type=int, default=1)
    add("--keep", action="store_true", help="append the rows to benchmarks/results")
    return parser.parse_args(arguments)


def _tell(row: Row, *, keep: bool) -> None:
    """Print a row, and keep it at once: the next takes minutes."""
    print("\n".join(lines([row])), flush=True)
    if keep:
        append([row], RESULTS)


def _measure(log: GrownLog, options: argparse.Namespace) -> Figures:
    figures = log.grow()
    figures |= log.prove_entries(options.inclusions)
    figures |= log.prove_growth(options.consistencies)
    return figures | log.check() | log.weigh()


def _read_by_others(log: GrownLog, options: argparse.Namespace) -> bool:
    proofs = log.files.folder / "ours.json"
    proofs.write_text(json.dumps(log.some_proofs(options.others)), "utf-8")
    keys = [str(each.verifier) for each in (log.signer, *log.witnesses)]
    command = [options.python, strangers.__file__, log.files.folder, *keys, "--ours", proofs]
    return subprocess.run(command, check=False).returncode == 0


def _tamper(options: argparse.Namespace) -> Outcome:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        evidence = make_evidence(Path(folder), options.tampered_size)
        return tamper(evidence, options.tamper, options.seed, lambda missed: print(f"NOT NOTICED: {missed}"))


def _row(now: datetime, scenario: str, settings: dict[str, int], figures: Figures) -> Row:
    server = {"label": "ours", "version": "", "dtype": "", "model": "", "reference": True}
    return Row(
        run=f"{now:%Y%m%dT%H%M%SZ}",
        date=now.isoformat(timespec="seconds"),
        **describe_commit(),
        machine=describe_machine(),
        server=server,
        scenario=scenario,
        settings=settings,
        rounds=[figures],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
