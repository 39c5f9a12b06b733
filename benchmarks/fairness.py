"""Whether one project's flood starves another project.

    python benchmarks/fairness.py --base-url http://127.0.0.1:8600/v1 --seconds 60

Two keys of two projects: FLOOD_API_KEY keeps 64 long requests in flight, PATIENT_API_KEY asks for few tokens
once a second. Prints the latter's latencies with and without the flood, and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.command import run
from benchmarks.load.figures import Figures, percentile, ratio
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.outcome import Outcome, read_whole
from benchmarks.load.prompts import Prompts
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.server import Server, completion, first_model
from benchmarks.load.table import lines
from benchmarks.load.wire import Address, exchange

LONG = {"tokens": 128, "max_tokens": 384}
"""A request of the flood: about half a thousand tokens."""

SHORT = {"tokens": 16, "max_tokens": 8}
"""A request of the other project."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep the row where that was asked for; 1 if any request failed."""
    return run(_main(_parse(arguments)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/fairness.py", description="Two projects at one server: one floods, one is patient."
    )
    environ = os.environ.get
    add = parser.add_argument
    add("--base-url", default=environ("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--flood-key", default=environ("FLOOD_API_KEY"), help="else FLOOD_API_KEY")
    add("--patient-key", default=environ("PATIENT_API_KEY"), help="else PATIENT_API_KEY")
    add("--model", help="else the first that is listed")
    add("--seconds", type=int, default=60, help="of each half of the measurement (default 60)")
    add("--flood", type=int, default=64, help="long requests kept in flight (default 64)")
    add("--seed", type=int, help="of prompts and requests; drawn if left out")
    add("--dtype", default="", help="number format that the server was started with")
    add("--keep", action="store_true", help="append the row to benchmarks/results")
    options = parser.parse_args(arguments)
    if options.flood_key == options.patient_key and options.flood_key is not None:
        parser.error("the two keys are the same; they must belong to different projects")
    return options


async def _main(options: argparse.Namespace) -> int:
    address = Address.parse(options.base_url)
    model = options.model or await first_model(address, options.patient_key)
    patient = Server(label="patient", address=address, model=model, key=options.patient_key)
    flooding = replace(patient, label="flood", key=options.flood_key)
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    prompts = Prompts(seed, "text")
    idle = await ask_each_second(patient, prompts, options.seconds, "idle")
    flood = Flood(flooding, prompts, options.flood)
    flood.start()
    try:
        # The flood needs a moment to fill the engine.
        await asyncio.sleep(min(5.0, options.seconds / 4))
        flooded = await ask_each_second(patient, prompts, options.seconds, "flooded")
    finally:
        await flood.stop()
    row = _row(options, model, seed, figures(idle, flooded, flood.tokens_per_second))
    for line in lines([row]):
        print(line)
    problems = [each.problem for each in (*idle, *flooded) if each.problem] + flood.problems
    for problem in dict.fromkeys(problems):
        print(f"failed: {problem}", file=sys.stderr)
    if options.keep and not problems:
        append([row], RESULTS)
    return 1 if problems else 0


def _body(prompts: Prompts, size: dict[str, int], *purpose: object) -> dict[str, Any]:
    return {
        "prompt": prompts.draw(size["tokens"], *purpose),
        "max_tokens": size["max_tokens"],
        "temperature": 1.0,
        "seed": prompts.draw_seed(*purpose),
        "ignore_eos": True,
    }


async def ask_each_second(server: Server, prompts: Prompts, seconds: int, purpose: str) -> list[Outcome]:
    """One short request at each full second, whether or not the last has been answered."""

    async def ask(number: int) -> Outcome:
        await asyncio.sleep(number)
        body = _body(prompts, SHORT, purpose, number)
        return read_whole(await exchange(server.address, completion(server, body)))

    return await asyncio.gather(*(ask(number) for number in range(seconds)))


class Flood:
    """Keeps long requests in flight.

    Args:
        server: the server, with the key of the project that floods.
        prompts: where prompts come from.
        width: how many are in flight.
    """

    def __init__(self, server: Server, prompts: Prompts, width: int) -> None:
        self.problems: list[str] = []
        """Problems of requests that were answered."""
        self._server = server
        self._prompts = prompts
        self._width = width
        self._tokens = 0
        self._began = self._ended = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Send the first requests."""
        self._began = perf_counter()
        self._tasks = [asyncio.ensure_future(self._keep_asking(index)) for index in range(self._width)]

    async def stop(self) -> None:
        """Hang up."""
        self._ended = perf_counter()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens/s of the answers that came in whole."""
        return self._tokens / (self._ended - self._began)

    async def _keep_asking(self, worker: int) -> None:
        number = 0
        while True:
            body = _body(self._prompts, LONG, "flood", worker, number)
            outcome = read_whole(await exchange(self._server.address, completion(self._server, body)))
            self._tokens += outcome.output_tokens
            number += 1
            if outcome.problem is not None:
                self.problems.append(outcome.problem)
                await asyncio.sleep(1)


def figures(idle: Sequence[Outcome], flooded: Sequence[Outcome], flood_tokens: float) -> Figures:
    """Latencies of the patient project in both halves, and how much slower it became."""
    found: Figures = {"flood_tokens_per_s": flood_tokens, "requests": float(len(flooded))}
    for name, outcomes in (("idle", idle), ("flood", flooded)):
        seconds = [each.ended - each.started for each in outcomes if each.problem is None]
        if seconds:
            found |= {f"{name}_p{percent}_ms": 1e3 * percentile(seconds, percent) for percent in (50, 95)}
    for percent in (50, 95):
        slower = ratio(found.get(f"flood_p{percent}_ms"), found.get(f"idle_p{percent}_ms"))
        if slower is not None:
            found[f"slowdown_p{percent}"] = slower
    return found


def _row(options: argparse.Namespace, model: str, seed: int, found: Figures) -> Row:
    now = datetime.now(UTC)
    server = {"label": "ours", "version": "", "dtype": options.dtype, "model": model, "reference": True}
    return Row(
        run=f"{now:%Y%m%dT%H%M%SZ}",
        date=now.isoformat(timespec="seconds"),
        **describe_commit(),
        machine=describe_machine(),
        server=server,
        scenario="fairness",
        settings={"flood": options.flood, "seconds": options.seconds, "seed": seed, "form": "text"},
        rounds=[found],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
