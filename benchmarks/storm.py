"""Whether a storm of plans disturbs those who generate.

    python benchmarks/storm.py --base-url http://127.0.0.1:8600/v1 --rounds 5

Two keys of two projects: QUIET_API_KEY streams seeded completions with logprobs, STORM_API_KEY keeps plans
in flight: captures, sweeps, lenses, gradients and generation under writes. Each round does the same streams
without the storm and with it; prints the times between tokens of both, their ratio, and how many answers were
equal to the bit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.inside import work
from benchmarks.load.command import run
from benchmarks.load.figures import Figures, percentile, ratio
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.outcome import read_stream
from benchmarks.load.prompts import Prompts
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.server import Server, completion, first_model, volley
from benchmarks.load.sse import DONE, read_events
from benchmarks.load.table import lines
from benchmarks.load.wire import Address, Reply, encode_request, exchange

STREAMS, TOKENS = 8, 96
"""How many generate at once, and how much."""

_FULL = 503


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep the row where that was asked for; 1 if any request failed."""
    return run(_main(_parse(arguments)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/storm.py", description="Two projects at one server: one generates, one sends plans."
    )
    environ = os.environ.get
    add = parser.add_argument
    add("--base-url", default=environ("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--quiet-key", default=environ("QUIET_API_KEY"), help="else QUIET_API_KEY")
    add("--storm-key", default=environ("STORM_API_KEY"), help="else STORM_API_KEY")
    add("--rounds", type=int, default=5, help="each without the storm and with it (default 5)")
    add("--plans", type=int, default=8, help="plans kept in flight (default 8)")
    add("--dtype", default="", help="number format that the server was started with")
    add("--keep", action="store_true", help="append the row to benchmarks/results")
    options = parser.parse_args(arguments)
    if options.quiet_key == options.storm_key and options.quiet_key is not None:
        parser.error("the two keys are the same; they must belong to different projects")
    return options


async def _main(options: argparse.Namespace) -> int:
    address = Address.parse(options.base_url)
    model = await first_model(address, options.quiet_key)
    quiet = Server(label="quiet", address=address, model=model, key=options.quiet_key)
    storm = Storm(Server(label="storm", address=address, model=model, key=options.storm_key), options.plans)
    requests = [completion(quiet, _body(number)) for number in range(STREAMS)]
    await volley(quiet, requests, STREAMS)  # whatever the first ones have to wait for
    rounds = []
    for number in range(options.rounds):
        calm = await volley(quiet, requests, STREAMS)
        storm.start()
        try:
            await asyncio.sleep(2)
            disturbed = await volley(quiet, requests, STREAMS)
        finally:
            await storm.stop()
        rounds.append(figures(calm, disturbed, storm))
        print(f"round {number + 1} {rounds[-1]}", file=sys.stderr)
    row = _row(options, model, rounds)
    for line in lines([row]):
        print(line)
    for problem in dict.fromkeys(storm.problems):
        print(f"failed: {problem}", file=sys.stderr)
    if options.keep and not storm.problems:
        append([row], RESULTS)
    return 1 if storm.problems else 0


def _body(number: int) -> dict[str, Any]:
    return {
        "prompt": Prompts(7, "text").draw(64, "storm", number),
        "max_tokens": TOKENS,
        "temperature": 1.0,
        "seed": number,
        "logprobs": 3,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class Storm:
    """Keeps plans in flight.

    Args:
        server: the server, with the key of the project that sends them.
        width: how many are in flight.
    """

    def __init__(self, server: Server, width: int) -> None:
        self.problems: list[str] = []
        self.answered = 0
        """Plans, since it was started last."""
        self.turned_away = 0
        """Plans for which there was no room, since then."""
        self._server = server
        self._width = width
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Send the first plans."""
        self.answered = self.turned_away = 0
        self._tasks = [asyncio.ensure_future(self._keep_asking(index)) for index in range(self._width)]

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_asking(self, worker: int) -> None:
        for plan in _plans(worker):
            body = {"model": self._server.model} | plan
            request = encode_request(self._server.address, "POST", "/traces", body, self._server.key)
            reply = await exchange(self._server.address, request)
            self.answered += reply.status == 200
            if reply.status == _FULL:
                # A storm asks for more than its share of the queue, and is told to come back.
                self.turned_away += 1
                await asyncio.sleep(1)
            elif reply.status != 200:
                self.problems.append(f"status {reply.status}: {reply.body[:300].decode(errors='replace')}")
                await asyncio.sleep(1)


def _plans(worker: int) -> Iterator[dict[str, Any]]:
    """Plans of all kinds, for ever; each worker begins with another."""
    kinds = [_capture, _sweep, _lens, _steered, _gradient]
    turned = kinds[worker % len(kinds) :] + kinds[: worker % len(kinds)]
    for number, kind in enumerate(cycle(turned)):
        yield kind(1000 * worker + number)


def _capture(number: int) -> dict[str, Any]:
    reads = {"input": {"token_ids": work.prompt(number, 128)}, "read": {"x": {"at": "resid_post.*"}}}
    return {"runs": {"a": reads}, "return": ["a.x"]}


def _lens(number: int) -> dict[str, Any]:
    lens = {"at": "resid_post.*", "reduce": {"unembed": {"topk": 5}}}
    return {
        "runs": {"a": {"input": {"token_ids": work.prompt(number, 16)}, "read": {"x": lens}}},
        "return": ["a.x"],
    }


def _sweep(number: int) -> dict[str, Any]:
    clean, other = ({"input": {"token_ids": work.prompt(each, 12)}} for each in (number, number + 1))
    write = [{"at": "resid_post.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}}]
    read = {"x": {"at": "lm_head", "pos": "last", "unit": list(work.TARGETS)}}
    runs = {"clean": clean, "other": other, "patched": other | {"write": write, "read": read}}
    return {"runs": runs, "return": ["patched.x"], "sweep": {"layer": "all", "pos": "all"}}


def _steered(number: int) -> dict[str, Any]:
    write = [{"at": "resid_post.15", "op": "add", "value": 0.1}]
    generate = {"max_tokens": 32, "ignore_eos": True}
    run = {"input": {"token_ids": work.prompt(number, 32)}, "generate": generate, "write": write}
    return {"runs": {"a": run}, "return": ["a.tokens"]}


def _gradient(number: int) -> dict[str, Any]:
    grad = {"of": {"logit_diff": list(work.TARGETS)}, "wrt": {"g": {"at": "resid_post.*"}}}
    return {"runs": {"a": {"input": {"token_ids": work.prompt(number, 24)}, "grad": grad}}, "return": ["a.g"]}


def figures(calm: Sequence[Reply], disturbed: Sequence[Reply], storm: Storm) -> Figures:
    """Times between tokens without and with the storm, and whether the answers are the same."""
    found: Figures = {"requests": float(len(calm)), "plans": float(storm.answered)}
    found["turned_away"] = float(storm.turned_away)
    for name, replies in (("calm", calm), ("storm", disturbed)):
        outcomes = [read_stream(reply) for reply in replies]
        for outcome in outcomes:
            if outcome.problem is not None:
                raise ConnectionError(outcome.problem)
        gaps = [gap for outcome in outcomes for gap in outcome.gaps]
        found |= {f"{name}_p{percent}_ms": 1e3 * percentile(gaps, percent) for percent in (50, 95)}
    for percent in (50, 95):
        slower = ratio(found[f"storm_p{percent}_ms"], found[f"calm_p{percent}_ms"])
        if slower is not None:
            found[f"slowdown_p{percent}"] = slower
    pairs = zip(calm, disturbed, strict=True)
    found["same_answers"] = float(sum(said(one) == said(other) for one, other in pairs))
    return found


def said(reply: Reply) -> tuple[str, list[Any]]:
    """What a stream says, however it was cut into events: its text, and its tokens with their logprobs."""
    text, tokens = "", []
    for event in read_events(reply.parts):
        for choice in event.json().get("choices") or () if event.data != DONE else ():
            text += choice["text"]
            told = choice.get("logprobs") or {}
            columns = (told.get(name) or () for name in ("tokens", "token_logprobs", "top_logprobs"))
            tokens += list(zip(*columns, strict=True))
    return text, tokens


def _row(options: argparse.Namespace, model: str, rounds: list[Figures]) -> Row:
    now = datetime.now(UTC)
    server = {"label": "ours", "version": "", "dtype": options.dtype, "model": model, "reference": True}
    return Row(
        run=f"{now:%Y%m%dT%H%M%SZ}",
        date=now.isoformat(timespec="seconds"),
        **describe_commit(),
        machine=describe_machine(),
        server=server,
        scenario="storm",
        settings={"plans": options.plans, "streams": STREAMS, "tokens": TOKENS},
        rounds=rounds,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
