"""How well `transom watch` tells servers that lie from servers that do not.

    python benchmarks/watch.py .transom/models/smollm2-135m-instruct --homes /tmp/lies

Makes model roots that are altered a little, serves them one after the other, asks each the same questions,
and draws samples from their answers: a baseline of the honest server, and a look at another one. Prints how
often the look said that something changed, and what it cost.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.figures import Figures
from benchmarks.load.ours import own_row
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.watching.lies import HONEST, LIES, Lie, make_home
from benchmarks.watching.pools import Amounts, Crowd, Pool, fill, serving
from benchmarks.watching.trials import AFTER, ALPHA, BEFORE, WAYS, Way, alarms

AGAIN, BUSY, COOLER = "honest, later", "honest, under load", "temperature 0.9 for 1"
"""What is asked of the honest server besides; to draw at another temperature needs no other server."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep rows where that was asked for; 1 if honest servers gave too many alarms."""
    options = _parse(arguments)
    pools = dict(_pools(options))
    found = {way: _detected(way, pools, options.trials) for way in WAYS}
    rows = [_row(options, way, pools[HONEST.name], figures) for way, figures in found.items()]
    for row in rows:
        print(*_lines(row), sep="\n", flush=True)
    if options.keep:
        append(rows, RESULTS)
    # A hundred trials at 0.001: two alarms have a chance of 0.5 %.
    return int(
        any(figures[name] > options.trials / 50 for figures in found.values() for name in (AGAIN, BUSY))
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/watch.py", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("root", type=Path, help="the honest model root: SmolLM2, whose chat template can be altered")
    add("--homes", type=Path, required=True, help="folder for altered roots, homes of servers, and answers")
    add("--port", type=int, default=8750, help="for the server that is up (default 8750)")
    add("--trials", type=int, default=100, help="of each lie and way (default 100)")
    add("--seeds", type=int, default=12, help="answers to each open prompt (default 12)")
    add("--repeats", type=int, default=1, help="times that all else is asked for (default 1)")
    add("--rounds", type=int, default=40, help="rounds of answers without seeds (default 40)")
    add("--keep", action="store_true", help="append rows to benchmarks/results")
    return parser.parse_args(arguments)


def _pools(options: argparse.Namespace) -> Iterator[tuple[str, Pool]]:
    """The answers of every server; those that are there from an interrupted run are taken as they are."""
    amounts = Amounts(options.seeds, options.repeats, options.rounds)
    for lie in (HONEST, *LIES):
        names = [HONEST.name, AGAIN, BUSY, COOLER] if lie is HONEST else [lie.name]
        file = options.homes / f"{lie.name.replace(' ', '-')}-{amounts.seeds}-{amounts.rounds}.pickle"
        if not file.exists():
            print(f"asking: {lie.name}", file=sys.stderr, flush=True)
            made = _ask(lie, options, amounts)
            file.write_bytes(pickle.dumps(made))
        yield from zip(names, pickle.loads(file.read_bytes()), strict=True)


def _ask(lie: Lie, options: argparse.Namespace, amounts: Amounts) -> list[Pool]:
    home = make_home(lie, options.root, options.homes)
    with serving(home, options.root.name, options.port, lie.environment) as asker:
        pools = [fill(asker, amounts)]
        if lie is HONEST:
            pools.append(fill(asker, amounts))
            with Crowd(asker):
                pools.append(fill(asker, amounts))
            pools.append(fill(asker, amounts, temperature=0.9))
    return pools


def _detected(way: Way, pools: Mapping[str, Pool], trials: int) -> Figures:
    """Trials in which a change was found, by the server that was looked at."""
    generator = np.random.default_rng(1)
    others = (name for name in pools if name != HONEST.name)
    return {name: float(alarms(way, pools[HONEST.name], pools[name], trials, generator)) for name in others}


def _row(options: argparse.Namespace, way: Way, honest: Pool, figures: Figures) -> Row:
    tokens = honest.tokens[way.counted]
    settings = {
        "way": way.name,
        "prompts": way.prompts,
        "before": BEFORE,
        "after": AFTER,
        "alpha": ALPHA,
        "trials": options.trials,
        "pool": {"seeds": options.seeds, "repeats": options.repeats, "rounds": options.rounds},
        "requests": way.requests,
        "tokens": round(way.requests * tokens),
        "baseline_requests": BEFORE * way.prompts,
        "baseline_tokens": round(BEFORE * way.prompts * tokens),
    }
    return own_row("watch", options.root.name, "float32", settings, [figures])


def _lines(row: Row) -> Iterator[str]:
    said = row.settings
    yield (
        f"{said['way']}: {said['requests']} requests and {said['tokens']} tokens a look, "
        f"{said['baseline_requests']} and {said['baseline_tokens']} for the baseline, at {said['alpha']:g}"
    )
    for name, count in row.rounds[0].items():
        yield f"  {name:24} {count:4.0f} of {said['trials']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
