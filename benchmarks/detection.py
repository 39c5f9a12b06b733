"""Which lies of an operator are found, by replaying records and by following the log.

    python benchmarks/detection.py .transom/models/smollm2-135m-instruct --homes /tmp/lies

An honest server replays what other servers, or other questions, answered and what a record says that it has
answered. Each lie is recorded twice: with the logprobs that came with it, and with those that the honest
model would have given, which a liar can have who runs both. Prints a line for each lie: how often it was
found, and after how many tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.detecting import log_lies
from benchmarks.detecting.asking import Asker, serving
from benchmarks.detecting.claims import Claim, Forger
from benchmarks.detecting.lies import ASKED, SERVED, claims, questions, untold
from benchmarks.detecting.page import SCENARIO
from benchmarks.load.figures import Figures
from benchmarks.load.ours import own_row
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.watching.lies import HONEST, make_home
from transom.schema.record import ReplayReport

TRIALS = 100


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep rows where that was asked for; 1 if an honest answer was found to be a lie."""
    options = _parse(arguments)
    rows = []
    for name, figures in _measure(options):
        print(f"{name:28}", *(f"{key} {value:g}" for key, value in figures.items()), sep="  ", flush=True)
        rows.append(_row(options, name, figures))
    if options.keep:
        append(rows, RESULTS)
    return int(any(row.rounds[0]["false_alarms"] for row in rows))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/detection.py", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("root", type=Path, help="the honest model root: SmolLM2, whose chat template can be altered")
    add("--homes", type=Path, required=True, help="folder for altered roots and homes of servers")
    add("--port", type=int, default=8790, help="of the honest server; the other has the next (default 8790)")
    add("--tokens", type=int, default=128, help="of each answer (default 128)")
    add("--trials", type=int, default=TRIALS, help="of each lie (default 100)")
    add("--crowd", type=int, default=1000, help="honest answers under full load (default 1000)")
    add("--only", action="append", default=[], help="lie about an answer to tell alone; repeatable")
    add("--keep", action="store_true", help="append rows to benchmarks/results")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    def wanted(lie: str) -> bool:
        return not options.only or lie in options.only

    home = make_home(HONEST, options.root, options.homes)
    name = options.root.name
    with serving(home, name, options.port, options.tokens) as honest:
        forger = Forger(home, name, honest.deployment)
        asked = questions(options.trials, 1)
        true = _found(honest, forger.record(claims(honest, honest, asked, None)))
        for lie in (each for each in ASKED if wanted(each.name)):
            said = claims(honest, honest, asked, lie.change)
            yield lie.name, _figures(honest, forger, said, true)
        for altered in (each for each in SERVED if wanted(each.name)):
            other = make_home(altered, options.root, options.homes)
            # A template shows in its own system message alone.
            told = [untold(question) for question in asked] if "template" in altered.name else asked
            with serving(other, name, options.port + 1, options.tokens) as liar:
                said = claims(honest, liar, told, None)
            yield altered.name, _figures(honest, forger, said, true)
        if options.only:
            return
        yield "honest, under full load", _crowd(honest, options.crowd)
        looks = [log_lies.deleted(home, honest.client, options.trials, lie=lie) for lie in (True, False)]
        yield "a record deleted", _counted(*looks)
    for title, way in (("a record back-dated", log_lies.back_dated), ("a log forked", log_lies.forked)):
        yield title, _counted(way(options.trials, lie=True), way(options.trials, lie=False))


def _found(honest: Asker, ids: Sequence[str]) -> list[ReplayReport]:
    return [report for report in honest.replayed(ids) if report.level != "EXACT"]


def _figures(honest: Asker, forger: Forger, said: Sequence[Claim], true: Sequence[ReplayReport]) -> Figures:
    asked = [claim.question for claim in said]
    logprobs = honest.scored(asked, [claim.given for claim in said])
    faked = [claim.under(values) for claim, values in zip(said, logprobs, strict=True)]
    plain, hidden = _found(honest, forger.record(said)), _found(honest, forger.record(faked))
    figures = {
        "found": float(len(plain)),
        "found_with_faked_logprobs": float(len(hidden)),
        "false_alarms": float(len(true)),
    }
    for name, reports in (("tokens", plain), ("tokens_with_faked_logprobs", hidden)):
        needed = [
            report.first_difference.position + 1 for report in reports if report.first_difference is not None
        ]
        if needed:
            figures |= {name: float(median(needed)), f"{name}_most": float(max(needed))}
    return figures


def _crowd(honest: Asker, count: int) -> Figures:
    """Honest answers, 64 at once so that the server is never idle, and each replayed."""
    return {
        "answers": float(count),
        "false_alarms": float(len(_found(honest, honest.ids(questions(count, 1 << 20))))),
    }


def _counted(lies: Iterator[bool], truths: Iterator[bool]) -> Figures:
    return {"found": float(sum(lies)), "false_alarms": float(sum(truths))}


def _row(options: argparse.Namespace, name: str, figures: Figures) -> Row:
    settings = {"lie": name, "trials": options.trials, "tokens": options.tokens}
    return own_row(SCENARIO, options.root.name, "float32", settings, [figures], run="%Y%m%dT%H")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
