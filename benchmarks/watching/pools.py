"""Answers of one server, asked for once and drawn from in many trials."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import httpx2

from benchmarks.load.homes import serving_home
from transom.client.connection import Connection
from transom.client.watching.asking import Asker
from transom.client.watching.baseline import Form
from transom.client.watching.looking import TEXT_PROMPTS
from transom.client.watching.shifts import Logprobs

LOGPROBS, SEEDED, DRAWN = (
    Form(endpoint="chat", top=20),
    Form(endpoint="chat", seeded=True),
    Form(endpoint="chat"),
)

SHORT, LONG, ROUND = 8, 32, 16
"""Tokens of short and long answers with seeds, and of those without."""

SHORT_PROMPTS = tuple(a + b for a, b in product("abdefghiklmn", ("", "1", "e", "o", "an", ".")))
"""72 prompts of a token or two."""


@dataclass
class Pool:
    """What a server answered."""

    logprobs: list[list[Logprobs]] = field(default_factory=list)
    """By repeat and prompt of `SHORT_PROMPTS`."""
    seeded: dict[int, list[list[str]]] = field(default_factory=dict)
    """By length, repeat and probe: each of `TEXT_PROMPTS` with each seed."""
    drawn: list[list[str]] = field(default_factory=list)
    """By round and prompt of the first four `TEXT_PROMPTS`, no two with the same seed."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Tokens of a request, prompt and answer, by method."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is asked for."""

    seeds: int = 12
    repeats: int = 1
    rounds: int = 40
    width: int = 16
    """Requests in flight."""


@contextmanager
def serving(home: Path, model: str, port: int, environment: dict[str, str]) -> Iterator[Asker]:
    """Start a server over a home folder, and end it."""
    with serving_home(home, port, environment) as (address, key):
        connection = Connection.find(address, key)
        with httpx2.Client(**connection.options(600)) as http:
            yield Asker(http, model, concurrency=64)


def fill(asker: Asker, amounts: Amounts, temperature: float = 1.0) -> Pool:
    """Ask for everything.

    Args:
        asker: asks the server.
        amounts: how much.
        temperature: at which texts are drawn, whatever temperature is said to have been asked for.
    """
    pool = Pool()
    work = _Work(asker, pool, amounts.width, temperature)
    pool.logprobs = [work.logprobs() for _ in range(amounts.repeats)]
    probes = list(product(TEXT_PROMPTS, range(amounts.seeds)))
    for length in (SHORT, LONG):
        pool.seeded[length] = [work.texts(SEEDED, probes, length) for _ in range(amounts.repeats)]
    prompts = TEXT_PROMPTS[:4]
    flat = work.texts(DRAWN, [(prompt, 0) for prompt in prompts * amounts.rounds], ROUND)
    pool.drawn = [flat[start : start + len(prompts)] for start in range(0, len(flat), len(prompts))]
    return pool


class _Work:
    """Asks many things at once, and counts tokens by method."""

    def __init__(self, asker: Asker, pool: Pool, width: int, temperature: float) -> None:
        self._asker = asker
        self._pool = pool
        self._width = width
        self._temperature = temperature

    def logprobs(self) -> list[Logprobs]:
        """Of all short prompts."""
        with self._counted("logprobs", len(SHORT_PROMPTS)), ThreadPoolExecutor(self._width) as pool:
            return list(pool.map(lambda prompt: self._asker.logprobs(LOGPROBS, prompt), SHORT_PROMPTS))

    def texts(self, form: Form, probes: Sequence[tuple[str, int]], length: int) -> list[str]:
        """Of all probes."""
        name = f"text {length}" if form.seeded else "text, no seeds"
        with self._counted(name, len(probes)), ThreadPoolExecutor(self._width) as pool:
            return list(pool.map(lambda probe: self._text(form, probe, length), probes))

    def _text(self, form: Form, probe: tuple[str, int], length: int) -> str:
        prompt, seed = probe
        return self._asker.text(form, prompt, length, seed, temperature=self._temperature)

    @contextmanager
    def _counted(self, name: str, requests: int) -> Iterator[None]:
        before = self._asker.tokens
        yield
        self._pool.tokens[name] = (self._asker.tokens - before) / requests


class Crowd:
    """Other clients, who keep a server busy with long answers while it is entered.

    Args:
        asker: the same server.
        width: how many.
    """

    def __init__(self, asker: Asker, width: int = 4) -> None:
        self._asker = asker
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(width)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            self._asker.text(DRAWN, f"Tell me {number + 3} facts about the sea.", 48, 0)
