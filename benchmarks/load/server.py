"""A server under measurement: where it is, what it calls itself, and what it can be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from benchmarks.load.outcome import read_stream
from benchmarks.load.prompts import Prompt, Prompts
from benchmarks.load.wire import Address, Reply, encode_request, exchange

Scoring = Literal["echo", "echo and one token", "prompt_logprobs"]
"""How a server is asked for the logprobs of a prompt."""

SCORING: dict[Scoring, dict[str, Any]] = {
    "echo": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "echo and one token": {"echo": True, "logprobs": 1, "max_tokens": 1},
    "prompt_logprobs": {"prompt_logprobs": 1, "max_tokens": 1},
}
"""Fields of each way, the best first."""

UP_SECONDS = 1200.0
"""How long a server may take to start."""

_PROBE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server, as the command line names it."""

    label: str
    address: Address
    model: str
    key: str | None = None
    pid: int | None = None
    """Process whose tree is watched; None where it is not known."""
    version: str = ""
    dtype: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a server accepts, found by asking it."""

    token_ids: bool
    ignore_eos: bool
    usage: bool
    """Whether a stream can end with its usage."""
    lists: bool
    """Whether one request may hold several prompts."""
    logprobs: bool
    scoring: Scoring | None

    def missing(self) -> list[str]:
        """What it does not do, in words."""
        said = {
            "token ids as prompts": self.token_ids,
            "ignore_eos": self.ignore_eos,
            "usage in streams": self.usage,
            "lists of prompts": self.lists,
            "logprobs": self.logprobs,
            "logprobs of prompts": self.scoring is not None,
        }
        return [words for words, can in said.items() if not can]


def completion(server: Server, body: dict[str, Any]) -> bytes:
    """A request to `/completions`."""
    return encode_request(server.address, "POST", "/completions", {"model": server.model} | body, server.key)


async def volley(
    server: Server,
    requests: Sequence[bytes],
    concurrency: int,
    timeout: float = 600.0,  # noqa: ASYNC109
) -> list[Reply]:
    """Send requests, `concurrency` at a time, each as soon as an earlier one ends.

    Args:
        server: where to.
        requests: in the order of their sending.
        concurrency: how many are in flight at once.
        timeout: seconds that one reply may take.

    Returns:
        The replies, in the order of the requests.
    """
    waiting = iter(enumerate(requests))
    replies: dict[int, Reply] = {}

    async def work() -> None:
        for index, request in waiting:
            replies[index] = await exchange(server.address, request, timeout=timeout)

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(requests)))))
    return [replies[index] for index in range(len(requests))]


async def probe(server: Server, vocabulary: int) -> Abilities:
    """Ask a server for one thing after the other, with requests of a few tokens."""
    words = Prompts(0, "text").draw(8, "probe")
    plain: dict[str, Any] = {"prompt": words, "max_tokens": 2, "temperature": 0}
    first = await _ask(server, plain)
    if first.problem is not None or first.status != 200:
        said = first.problem or first.body[:300].decode(errors="replace")
        raise ConnectionError(f"{server.label} does not answer a plain completion: {first.status} {said}")
    token_ids = await _accepts(server, plain | {"prompt": Prompts(0, "ids", vocabulary).draw(8, "probe")})
    # A server that ignores the field answers 200 as well; then the figures are those of fewer tokens.
    ignore_eos = await _accepts(server, plain | {"ignore_eos": True})
    streamed = plain | {"stream": True, "stream_options": {"include_usage": True}}
    reply = await _ask(server, streamed)
    usage = reply.status == 200 and read_stream(reply).prompt_tokens > 0
    drawn: list[Prompt] = [Prompts(0, "text").draw(8, "probe", index) for index in range(2)]
    return Abilities(
        token_ids=token_ids,
        ignore_eos=ignore_eos,
        usage=usage,
        lists=len(_choices(await _ask(server, plain | {"prompt": drawn}))) == 2,
        logprobs=bool(_logprobs(_choices(await _ask(server, plain | {"logprobs": 5})))),
        scoring=await _way_to_score(server, plain),
    )


async def _ask(server: Server, body: dict[str, Any]) -> Reply:
    return await exchange(server.address, completion(server, body), timeout=_PROBE_SECONDS)


async def _accepts(server: Server, body: dict[str, Any]) -> bool:
    return (await _ask(server, body)).status == 200


async def _way_to_score(server: Server, plain: dict[str, Any]) -> Scoring | None:
    for way, fields in SCORING.items():
        choices = _choices(await _ask(server, plain | fields))
        # The prompt has eight words, so at least as many tokens.
        found = [each for choice in choices for each in choice.get("prompt_logprobs") or ()]
        if len(_logprobs(choices)) >= 8 or len(found) >= 8:
            return way
    return None


def _choices(reply: Reply) -> list[dict[str, Any]]:
    if reply.status != 200:
        return []
    try:
        return list(reply.json().get("choices") or ())
    except ValueError:
        return []


def _logprobs(choices: Iterable[dict[str, Any]]) -> list[float | None]:
    return [each for choice in choices for each in (choice.get("logprobs") or {}).get("token_logprobs") or ()]


async def wait_until_up(address: Address, key: str | None, limit: float = UP_SECONDS) -> float:
    """Wait until a server lists a model, or says that it is healthy without listing any.

    Returns:
        Seconds that were waited.

    Raises:
        TimeoutError: it did not come up within `limit` seconds.
        PermissionError: it wants a key, or another one.
    """
    started = perf_counter()
    while perf_counter() - started < limit:
        reply = await exchange(address, encode_request(address, "GET", "/models", key=key), timeout=30)
        if reply.status in (401, 403):
            raise PermissionError(f"{address.host}:{address.port} wants a key: --key LABEL=KEY")
        listed = reply.status == 200 and reply.json().get("data")
        if listed or (reply.status and await _is_healthy(address.root)):
            return perf_counter() - started
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{address.host}:{address.port} did not come up within {limit:g} s")


async def _is_healthy(root: Address) -> bool:
    """Whether a server that lists no model is up all the same; never Transom, which lists those it serves."""
    if (await exchange(root, encode_request(root, "GET", "/ready"), timeout=30)).status != 404:
        return False
    return (await exchange(root, encode_request(root, "GET", "/health"), timeout=30)).status == 200


async def first_model(address: Address, key: str | None) -> str:
    """The first model that a server lists.

    Raises:
        ValueError: it lists none.
    """
    reply = await exchange(address, encode_request(address, "GET", "/models", key=key), timeout=30)
    listed = reply.json().get("data") if reply.status == 200 else None
    if not listed:
        raise ValueError(f"{address.host}:{address.port} lists no model: --model LABEL=MODEL")
    return str(listed[0]["id"])


async def reported_version(address: Address) -> str:
    """What `/version` says, as vLLM has it; empty where there is none."""
    reply = await exchange(address.root, encode_request(address.root, "GET", "/version"), timeout=30)
    try:
        return str(reply.json()["version"]) if reply.status == 200 else ""
    except (ValueError, KeyError, TypeError):
        return ""
