"""Gateways in turn: requests a second, latency, and what a request and a chunk cost the processor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.gateways.answers import MODEL, question
from benchmarks.gateways.loop import Tally, converse
from benchmarks.load.compare import order
from benchmarks.load.figures import Figures, percentile, percentiles_ms
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.processes import cpu_seconds
from benchmarks.load.rows import Row
from benchmarks.load.wire import Address, encode_request

MICRO = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One of those that are measured."""

    label: str
    address: Address
    pid: int
    key: str | None = None
    version: str = ""

    def request(self, *, stream: bool) -> bytes:
        """The bytes of a request, the same to every gateway but for the key."""
        body = question(stream=stream)
        return encode_request(self.address, "POST", "/chat/completions", body, self.key, close=False)


@dataclass(slots=True, kw_only=True)
class Sizes:
    """How many requests a round has."""

    latency: int = 500
    """One after the other."""
    throughput: int = 4000
    """`at_once` at a time."""
    streams: int = 32
    """`streams_at_once` at a time."""
    at_once: int = 32
    streams_at_once: int = 8


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Gateways, the first of which is the reference, and the upstream that all but the first hand on to."""

    gateways: Sequence[Gateway]
    upstream: Gateway
    rounds: int
    sizes: Sizes
    say: Callable[[str], None] = print
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def run(self) -> list[Row]:
        """Every scenario on every gateway, round after round; the first round warms up."""
        rows = await self._scenario("gateway", {"concurrency": self.sizes.at_once}, self._throughput)
        rows += await self._scenario("gateway_latency", {"concurrency": 1}, self._latency)
        return rows + await self._scenario(
            "gateway_stream", {"concurrency": self.sizes.streams_at_once}, self._streams
        )

    async def _scenario(
        self, name: str, settings: dict[str, Any], measure: Callable[[Gateway], Awaitable[Figures]]
    ) -> list[Row]:
        rounds: dict[str, list[Figures]] = {each.label: [] for each in self.gateways}
        for number in range(-1, self.rounds):
            for gateway in order(self.gateways, number):
                figures = await measure(gateway)
                if number >= 0:
                    rounds[gateway.label].append(figures)
                    told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                    self.say(f"{name}, round {number + 1} of {self.rounds}: {gateway.label} {told}")
        return [self._row(each, name, settings, rounds[each.label]) for each in self.gateways]

    async def _throughput(self, gateway: Gateway) -> Figures:
        before = cpu_seconds(gateway.pid)
        tally, seconds = await self._ask(gateway, self.sizes.throughput, self.sizes.at_once)
        cpu = cpu_seconds(gateway.pid) - before
        count = len(tally.seconds)
        return (
            {"requests_per_s": count / seconds, "cpu_us_per_request": MICRO * cpu / count}
            | percentiles_ms("latency", tally.seconds, (50, 99))
            | {"requests": count}
        )

    async def _latency(self, gateway: Gateway) -> Figures:
        # The upstream's own latency in the same minute: what a gateway adds is what it adds to that.
        bare, _ = await self._ask(self.upstream, self.sizes.latency, 1)
        tally, _ = await self._ask(gateway, self.sizes.latency, 1)
        added = percentile(tally.seconds, 50) - percentile(bare.seconds, 50)
        return {"added_p50_ms": 1e3 * added} | percentiles_ms("latency", tally.seconds, (50, 99))

    async def _streams(self, gateway: Gateway) -> Figures:
        before = cpu_seconds(gateway.pid)
        tally, seconds = await self._ask(gateway, self.sizes.streams, self.sizes.streams_at_once, stream=True)
        cpu = cpu_seconds(gateway.pid) - before
        return {"cpu_us_per_chunk": MICRO * cpu / tally.events, "chunks_per_s": tally.events / seconds}

    async def _ask(
        self, gateway: Gateway, count: int, at_once: int, *, stream: bool = False
    ) -> tuple[Tally, float]:
        tally, seconds = await converse(gateway.address, gateway.request(stream=stream), count, at_once)
        if tally.problems or len(tally.seconds) != count:
            problem = tally.problems[0] if tally.problems else "some replies did not come"
            raise ConnectionError(f"{gateway.label}: {problem}")
        return tally, seconds

    def _row(self, gateway: Gateway, name: str, settings: dict[str, Any], rounds: list[Figures]) -> Row:
        return Row(
            run=f"{self.began:%Y%m%dT%H%M%SZ}",
            date=self.began.isoformat(timespec="seconds"),
            **describe_commit(),
            machine=describe_machine(),
            server={
                "label": gateway.label,
                "version": gateway.version,
                "dtype": "",
                "model": MODEL,
                "reference": gateway is self.gateways[0],
            },
            scenario=name,
            settings=settings,
            rounds=rounds,
        )
