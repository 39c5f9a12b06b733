"""The command line of `serve.py`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from benchmarks.load.compare import Comparison, Contender
from benchmarks.load.processes import StartedServer
from benchmarks.load.prompts import Form, Prompts
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.scenarios import SCENARIOS, scaled
from benchmarks.load.server import Server, first_model, probe, reported_version, wait_until_up
from benchmarks.load.table import lines
from benchmarks.load.wire import Address

T = TypeVar("T")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of `serve.py`."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/serve.py", description="Measure OpenAI-compatible servers, in turn."
    )
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "compare", help="run scenarios on each server in turn, print medians, and append them to the results"
    )
    add = command.add_argument
    add(
        "--server",
        action="append",
        required=True,
        metavar="LABEL=URL",
        help="base URL such as ours=http://127.0.0.1:8600/v1; the first is the reference; repeatable",
    )
    for name, what in (
        ("key", "API key"),
        ("model", "model to ask for; else the first that is listed"),
        ("pid", "process whose tree is watched"),
        ("version", "version; else what /version says"),
        ("dtype", "number format that the server was started with"),
        ("start", "command that starts the server; it is ended afterwards"),
    ):
        add(
            f"--{name}",
            action="append",
            default=[],
            metavar=f"LABEL={name.upper()}",
            help=f"{what}; repeatable",
        )
    add("--scenario", action="append", choices=list(SCENARIOS), help="repeatable; all, if left out")
    add("--concurrency", action="append", type=int, default=[], help="only these; repeatable")
    add("--rounds", type=int, default=3, help="rounds of each setting (default 3)")
    add("--scale", type=float, default=1.0, help="multiplies the numbers of requests (default 1)")
    add("--seed", type=int, help="of prompts and requests; drawn and printed if left out")
    add(
        "--prompts",
        choices=["auto", "ids", "text"],
        default="auto",
        help="token ids where every server takes them (auto), or always one of both",
    )
    add("--vocabulary", type=int, default=49152, help="token ids are drawn below this (default 49152)")
    add("--timeout", type=float, default=600.0, help="seconds that one reply may take (default 600)")
    add("--no-warm-up", action="store_true", help="measure from the first request on")
    add("--no-results", action="store_true", help="print only; append nothing")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)  # fmt: skip


def pairs(given: Sequence[str], labels: Sequence[str] | None = None) -> dict[str, str]:
    """`LABEL=VALUE` options as a mapping.

    Args:
        given: what the command line says.
        labels: those that there are; None where these options name them.

    Raises:
        SystemExit: an option is malformed, or names nothing.
    """
    found: dict[str, str] = {}
    for each in given:
        label, equals, value = each.partition("=")
        if not equals or not label or (labels is not None and label not in labels):
            known = f"; there is {', '.join(labels)}" if labels is not None else ""
            raise SystemExit(f"{each!r} is not LABEL=VALUE{known}")
        found[label] = value
    return found


def main(arguments: Sequence[str]) -> int:
    """Compare servers; 1 where nothing could be measured."""
    options = parse(arguments)
    try:
        return run(_compare(options))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the cheapest event loop that is installed."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _compare(options: argparse.Namespace) -> int:
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with ExitStack() as stack:
        contenders = await _contenders(options, stack)
        comparison = Comparison(
            contenders=contenders,
            prompts=Prompts(seed, _form(options.prompts, contenders), options.vocabulary),
            rounds=options.rounds,
            warm_up=not options.no_warm_up,
            timeout=options.timeout,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        rows: list[Row] = []
        for name in options.scenario or SCENARIOS:
            scenario = scaled(SCENARIOS[name], options.scale, options.concurrency)
            if not scenario.settings:
                comparison.say(f"{name} has no setting of that concurrency")
            found = await comparison.run(scenario)
            _report(found, options)
            rows += found
        resources = list(comparison.resources())
        _report(resources, options)
        for warning in comparison.warnings():
            print(f"warning: {warning}", file=sys.stderr)
    return 0 if rows else 1


def _report(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print rows and keep them, as soon as they are there: a run may be interrupted."""
    for line in lines(rows):
        print(line, flush=True)
    if not options.no_results:
        append(rows, options.results)


async def _contenders(options: argparse.Namespace, stack: ExitStack) -> list[Contender]:
    urls = pairs(options.server)
    named = {
        name: pairs(getattr(options, name), list(urls))
        for name in ("key", "model", "pid", "version", "dtype", "start")
    }
    contenders = []
    for label, url in urls.items():
        given = {name: values.get(label) for name, values in named.items()}
        contenders.append(await _contender(label, Address.parse(url), given, options.vocabulary, stack))
    return contenders


async def _contender(
    label: str, address: Address, given: dict[str, str | None], vocabulary: int, stack: ExitStack
) -> Contender:
    pid, seconds = int(given["pid"]) if given["pid"] else None, None
    if given["start"]:
        pid, seconds = await _start(label, address, given["start"], given["key"], stack)
    else:
        await wait_until_up(address, given["key"])
    server = Server(
        label=label,
        address=address,
        model=given["model"] or await first_model(address, given["key"]),
        key=given["key"],
        pid=pid,
        version=given["version"] or await reported_version(address),
        dtype=given["dtype"] or "",
    )
    can = await probe(server, vocabulary)
    if missing := can.missing():
        print(f"{label} does not do: {', '.join(missing)}", file=sys.stderr, flush=True)
    return Contender(server=server, can=can, start_seconds=seconds)


async def _start(
    label: str, address: Address, command: str, key: str | None, stack: ExitStack
) -> tuple[int, float]:
    log = Path(tempfile.mkstemp(prefix=f"{label}-", suffix=".log")[1])
    print(f"starting {label}; it writes to {log}", file=sys.stderr, flush=True)
    began = perf_counter()
    started = StartedServer(command, log)
    stack.callback(started.stop)
    waiting = asyncio.ensure_future(wait_until_up(address, key))
    while not waiting.done():
        started.check()
        await asyncio.wait([waiting], timeout=0.5)
    waiting.result()
    return started.pid, perf_counter() - began


def _form(wanted: str, contenders: Sequence[Contender]) -> Form:
    """Ids where every server takes them: all servers get the same prompts."""
    if wanted == "text":
        return "text"
    return "ids" if wanted == "ids" or all(each.can.token_ids for each in contenders) else "text"
