"""How much faster answers are replayed than they were generated.

    python benchmarks/replay.py --base-url http://127.0.0.1:8600/v1 --count 200 --tokens 256 --rounds 4

Each round generates its part of the completions, all at once; a few of the same kind one after the other; and
replays the former in one request. Prompts and seeds differ, and the temperature is 1. The three are measured
in turn, so that a machine that is slower for a while is so for all of them. It ends with 1 if any record was
not `EXACT`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.command import run
from benchmarks.load.figures import Figures
from benchmarks.load.ours import own_row
from benchmarks.load.prompts import Prompts
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.server import Server, completion, first_model, volley
from benchmarks.load.table import lines
from benchmarks.load.wire import Address, Reply, encode_request, exchange

LONGEST = 3600.0
"""Seconds that one reply may take."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep the row where that was asked for; 1 if any record was not `EXACT`."""
    return run(_main(_parse(arguments)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/replay.py", description=__doc__.split("\n")[0])
    environ = os.environ.get
    add = parser.add_argument
    add("--base-url", default=environ("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--key", default=environ("OPENAI_API_KEY"), help="else OPENAI_API_KEY")
    add("--count", type=int, default=200, help="completions of all rounds together (default 200)")
    add("--tokens", type=int, default=256, help="of each completion (default 256)")
    add(
        "--alone",
        type=int,
        default=3,
        help="completions of a round that are generated one by one (default 3)",
    )
    add("--rounds", type=int, default=4, help="parts that the completions are done in (default 4)")
    add("--seed", type=int, default=0, help="of the prompts; another one is not in the prefix cache")
    add("--dtype", default="", help="number format that the server was started with")
    add("--keep", action="store_true", help="append the row to benchmarks/results")
    return parser.parse_args(arguments)


async def _main(options: argparse.Namespace) -> int:
    address = Address.parse(options.base_url)
    model = await first_model(address, options.key)
    server = Server(label="ours", address=address, model=model, key=options.key, dtype=options.dtype)
    bench = Bench(server, options.tokens, options.seed)
    await bench.generate([bench.request("warm", 0)], 1)
    rounds = []
    for number in range(options.rounds):
        first, last = (options.count * part // options.rounds for part in (number, number + 1))
        rounds.append(await bench.round(number, last - first, options.alone))
        print({name: round(value, 2) for name, value in rounds[-1].items()}, flush=True)
    row = _row(options, server, rounds)
    for line in lines([row]):
        print(line)
    exact = sum(figures["exact"] for figures in rounds)
    print(f"{exact:g} of {options.count} EXACT")
    if options.keep and exact == options.count:
        append([row], RESULTS)
    return int(exact != options.count)


class Bench:
    """Generates and replays.

    Args:
        server: that is measured.
        tokens: of each completion.
        seed: of the prompts.
    """

    def __init__(self, server: Server, tokens: int, seed: int) -> None:
        self._server = server
        self._tokens = tokens
        self._prompts = Prompts(seed, "text")

    def request(self, *purpose: object) -> bytes:
        """A completion with a prompt and a seed of its own."""
        place = hash_of(purpose)
        body = {
            "prompt": self._prompts.draw(16 + place % 49, *purpose),
            "max_tokens": self._tokens,
            "temperature": 1,
            "seed": place,
            "ignore_eos": True,
        }
        return completion(self._server, body)

    async def generate(self, requests: Sequence[bytes], at_once: int) -> tuple[list[str], float]:
        """Ids of the records, and how many seconds it took."""
        began = perf_counter()
        replies = await volley(self._server, requests, at_once, timeout=LONGEST)
        return [_body(reply)["id"] for reply in replies], perf_counter() - began

    async def replay(self, ids: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
        """The reports, and how many seconds it took."""
        address, key = self._server.address, self._server.key
        request = encode_request(address, "POST", "/records/replay", {"ids": list(ids)}, key)
        began = perf_counter()
        reply = await exchange(address, request, timeout=LONGEST)
        return _body(reply)["data"], perf_counter() - began

    async def round(self, number: int, count: int, alone: int) -> Figures:
        """Figures of one part of the completions."""
        ids, together = await self.generate([self.request(number, i) for i in range(count)], count)
        _, apart = await self.generate([self.request(number, "alone", i) for i in range(alone)], 1)
        reports, replayed = await self.replay(ids)
        apart *= count / alone
        return {
            "faster_than_one_by_one": apart / replayed,
            "faster_than_at_once": together / replayed,
            "replayed_tokens_per_s": count * self._tokens / replayed,
            "at_once_tokens_per_s": count * self._tokens / together,
            "one_by_one_tokens_per_s": count * self._tokens / apart,
            "exact": float(sum(report["level"] == "EXACT" for report in reports)),
        }


def hash_of(purpose: Sequence[object]) -> int:
    """A number of 32 bits that is the same in every process."""
    return int.from_bytes(sha256(repr(purpose).encode()).digest()[:4], "big")


def _body(reply: Reply) -> dict[str, Any]:
    if reply.problem is not None or reply.status != 200:
        said = reply.problem or reply.body[:300].decode(errors="replace")
        raise ConnectionError(f"status {reply.status}: {said}")
    found: dict[str, Any] = json.loads(reply.body)
    return found


def _row(options: argparse.Namespace, server: Server, rounds: list[Figures]) -> Row:
    settings = {
        "count": options.count,
        "tokens": options.tokens,
        "at_once": options.count // options.rounds,
        "alone": options.alone * options.rounds,
    }
    return own_row("replay", server.model, server.dtype, settings, rounds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
