"""Hours of mixed load: does memory grow, does any client see an error?

    python benchmarks/soak.py --base-url http://127.0.0.1:8600/v1 --pid SERVER_PID --minutes 60

Ends with 1 if a process grew by more than 2 % after the first five minutes, or if a client saw an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load.command import run
from benchmarks.load.memory import MOST_GROWTH_PERCENT, MemoryLog
from benchmarks.load.mixture import KINDS, send
from benchmarks.load.prompts import Prompts
from benchmarks.load.server import Server, first_model
from benchmarks.load.wire import Address

SAMPLE_SECONDS = 10.0
"""Between two samples of memory."""


def main(arguments: Sequence[str]) -> int:
    """Load the server, report, and say by the exit status whether it held."""
    return run(_main(_parse(arguments)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/soak.py", description="Mixed load at saturation; watches memory and errors."
    )
    add = parser.add_argument
    add("--base-url", default=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--key", default=os.environ.get("OPENAI_API_KEY"), help="else OPENAI_API_KEY")
    add("--model", help="else the first that is listed")
    add("--pid", type=int, required=True, help="the server's process; its engines are found below it")
    add("--minutes", type=float, default=60.0, help="how long (default 60)")
    add("--concurrency", type=int, default=48, help="clients at once (default 48)")
    add("--seed", type=int, help="of the load; drawn if left out")
    return parser.parse_args(arguments)


async def _main(options: argparse.Namespace) -> int:
    address = Address.parse(options.base_url)
    model = options.model or await first_model(address, options.key)
    server = Server(label="server", address=address, model=model, key=options.key, pid=options.pid)
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    soak = Soak(server, seed)
    memory = MemoryLog(options.pid)
    await soak.run(memory, 60 * options.minutes, options.concurrency)
    for line in (*soak.report(), *memory.report()):
        print(line)
    growth = memory.most_growth_percent()
    held = growth is not None and growth <= MOST_GROWTH_PERCENT and not memory.lost and not soak.errors
    print("held" if held else "did not hold")
    return 0 if held else 1


class Soak:
    """Clients of all kinds, and what they saw.

    Args:
        server: whom they ask.
        seed: of who asks what.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.errors: Counter[str] = Counter()
        """Errors that clients saw, by kind of client and message."""
        self.sent: Counter[str] = Counter()
        """Requests by kind of client."""
        self._server = server
        self._prompts = Prompts(seed, "text")
        self._until = 0.0

    async def run(self, memory: MemoryLog, seconds: float, concurrency: int) -> None:
        """Keep `concurrency` clients busy, and sample memory meanwhile."""
        self._until = perf_counter() + seconds
        clients = asyncio.gather(*(self._client(index) for index in range(concurrency)))
        while not clients.done():
            memory.sample(perf_counter())
            left = max(0.0, self._until - perf_counter())
            await asyncio.wait([clients], timeout=min(SAMPLE_SECONDS, left) or SAMPLE_SECONDS)
        clients.result()
        memory.sample(perf_counter())

    async def _client(self, index: int) -> None:
        chance = random.Random(f"{self._prompts.seed}/client/{index}")
        kinds = [kind for kind in KINDS for _ in range(kind.weight)]
        number = 0
        while perf_counter() < self._until:
            kind = chance.choice(kinds)
            problem = await send(kind, self._server, self._prompts, (index, number))
            number += 1
            self.sent[kind.name] += 1
            if problem is not None:
                self.errors[f"{kind.name}: {problem}"] += 1
                await asyncio.sleep(1)

    def report(self) -> list[str]:
        """Counts of requests and of errors."""
        found = [f"{count:7}  {name}" for name, count in sorted(self.sent.items())]
        wrong = [f"{count:7}  {what}" for what, count in self.errors.most_common(20)]
        return ["", "requests", *found, "", "errors that clients saw", *(wrong or ["      0"])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
