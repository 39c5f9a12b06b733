"""Clients of every kind: those that stream, score, want several choices, read slowly, or disappear."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.load.outcome import read_stream, read_whole
from benchmarks.load.prompts import Prompts
from benchmarks.load.server import Server
from benchmarks.load.wire import Exchange, Reply, encode_request, exchange

SLOW_READ_SECONDS = 0.25
"""How long a slow reader rests after each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of client."""

    name: str
    prompt_tokens: int
    weight: int = 1
    """How often it comes, beside the others."""
    body: Mapping[str, Any]
    chat: bool = False
    slow: bool = False
    leaves: bool = False
    """Whether it hangs up midway."""
    choices: int = 1


KINDS = (
    Kind(name="stream, short", prompt_tokens=24, weight=4, body={"max_tokens": 24, "stream": True}),
    Kind(name="stream, long", prompt_tokens=300, weight=1, body={"max_tokens": 160, "stream": True}),
    Kind(
        name="stream with logprobs",
        prompt_tokens=48,
        body={"max_tokens": 48, "stream": True, "logprobs": 5},
    ),
    Kind(name="whole, short", prompt_tokens=24, weight=4, body={"max_tokens": 16}),
    Kind(name="whole, long prompt", prompt_tokens=700, body={"max_tokens": 8}),
    Kind(name="chat", prompt_tokens=32, weight=2, chat=True, body={"max_tokens": 32}),
    Kind(
        name="chat, streamed", prompt_tokens=32, weight=2, chat=True, body={"max_tokens": 32, "stream": True}
    ),
    Kind(
        name="scoring",
        prompt_tokens=128,
        weight=3,
        body={"max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0},
    ),
    Kind(name="several choices", prompt_tokens=40, body={"max_tokens": 24, "n": 3}, choices=3),
    Kind(
        name="several choices, streamed",
        prompt_tokens=40,
        body={"max_tokens": 24, "n": 3, "stream": True},
        choices=3,
    ),
    Kind(
        name="slow reader",
        prompt_tokens=32,
        slow=True,
        body={"max_tokens": 48, "stream": True, "logprobs": 20},
    ),
    Kind(
        name="leaves a stream",
        prompt_tokens=64,
        weight=2,
        leaves=True,
        body={"max_tokens": 256, "stream": True},
    ),
    Kind(name="leaves before the answer", prompt_tokens=64, leaves=True, body={"max_tokens": 256}),
)
"""The mixture."""


async def send(kind: Kind, server: Server, prompts: Prompts, purpose: tuple[int, int]) -> str | None:
    """Be one client once.

    Args:
        kind: which.
        server: whom it asks.
        prompts: where its prompt comes from.
        purpose: what tells this request from the others.

    Returns:
        What the client would complain about; None if nothing.
    """
    text = prompts.draw(kind.prompt_tokens, *purpose)
    asked = {"messages": [{"role": "user", "content": text}]} if kind.chat else {"prompt": text}
    body = (
        {"model": server.model, "temperature": 1.0, "seed": prompts.draw_seed(*purpose)}
        | asked
        | dict(kind.body)
    )
    path = "/chat/completions" if kind.chat else "/completions"
    request = encode_request(server.address, "POST", path, body, server.key)
    if kind.leaves:
        return await _leave(kind, server, request, random.Random(f"{prompts.seed}/{purpose}"))
    reply = await exchange(server.address, request, watch=_read_slowly if kind.slow else None)
    return check(kind, reply)


async def _leave(kind: Kind, server: Server, request: bytes, chance: random.Random) -> str | None:
    """Hang up after some events of a stream, or a while before the answer."""
    if kind.body.get("stream"):
        reply = await exchange(server.address, request, watch=_hang_up_after(chance.randrange(1, 40)))
    else:
        try:
            async with asyncio.timeout(chance.uniform(0.05, 2.0)):
                reply = await exchange(server.address, request)
        except TimeoutError:
            return None
    return None if reply.status in (0, 200) and reply.problem is None else _complaint(reply)


def _hang_up_after(parts: int) -> Callable[[Exchange], None]:
    def watch(client: Exchange) -> None:
        if len(client.reply.parts) >= parts:
            client.hang_up()

    return watch


def _read_slowly(client: Exchange) -> None:
    if client.transport.is_closing():
        return
    client.transport.pause_reading()

    def go_on() -> None:
        if not client.transport.is_closing():
            client.transport.resume_reading()

    asyncio.get_running_loop().call_later(SLOW_READ_SECONDS, go_on)


def check(kind: Kind, reply: Reply) -> str | None:
    """What is wrong with a reply; None if nothing."""
    streamed = bool(kind.body.get("stream"))
    outcome = read_stream(reply, strict=True) if streamed else read_whole(reply)
    if outcome.problem is not None:
        return outcome.problem
    ended = _finished_choices(kind, reply)
    return None if ended == kind.choices else f"{ended} of {kind.choices} choices came to an end"


def _finished_choices(kind: Kind, reply: Reply) -> int:
    """How many choices have a finish reason."""
    if not kind.body.get("stream"):
        return sum(choice.get("finish_reason") is not None for choice in reply.json()["choices"])
    marks = (b'"finish_reason":"', b'"finish_reason": "')
    return sum(reply.body.count(mark) for mark in marks)


def _complaint(reply: Reply) -> str:
    return reply.problem or f"status {reply.status}: {reply.body[:300].decode(errors='replace')}"
