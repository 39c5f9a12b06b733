"""Measuring servers in turn: A B, B A, A B, …, so that a slow minute of the machine hurts both alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TypeVar

from benchmarks.load.figures import Figures
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.processes import MIB, PeakMemory, cpu_seconds
from benchmarks.load.prompts import Prompts
from benchmarks.load.rows import Row
from benchmarks.load.scenarios import Bench, Scenario, Settings, Unable, warming
from benchmarks.load.server import Abilities, Server
from benchmarks.load.words import SHOWN, name_figure, name_setting, show

T = TypeVar("T")

IDLE_PERCENT = 5.0
"""An idle server that takes more of one core than this disturbs the other's measurement."""


SETTLE_SECONDS = 1.0
"""Rest before each measurement: threads that wait for work by spinning give up within a part of it."""


@dataclass(slots=True, kw_only=True)
class Contender:
    """A server in a comparison."""

    server: Server
    can: Abilities
    start_seconds: float | None = None
    """From its start to its first answer; None where it was not started here."""
    idle_cpu_seconds: float = 0.0
    """Processor time that it took while others were measured."""
    idle_seconds: float = 0.0
    """How long others were measured."""
    peak_bytes: int = 0
    """Most memory that its processes had resident."""

    @property
    def idle_percent(self) -> float:
        """Share of one core that it took while others were measured."""
        return 100 * self.idle_cpu_seconds / self.idle_seconds if self.idle_seconds else 0.0


@dataclass(slots=True, kw_only=True)
class Comparison:
    """Servers, the first of which is the reference, and how they are compared."""

    contenders: Sequence[Contender]
    prompts: Prompts
    rounds: int
    warm_up: bool = True
    timeout: float = 600.0
    say: Callable[[str], None] = print
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    where: dict[str, Any] = field(default_factory=lambda: describe_commit() | {"machine": describe_machine()})
    """Commit and machine, as rows have them."""

    async def run(self, scenario: Scenario) -> list[Row]:
        """Every setting of a scenario, on every server, round after round."""
        rows: list[Row] = []
        for settings in scenario.settings:
            rows += await self._run_setting(scenario, settings)
        return rows

    async def _run_setting(self, scenario: Scenario, settings: Settings) -> list[Row]:
        rounds: dict[str, list[Figures]] = {each.server.label: [] for each in self.contenders}
        for number in range(-1 if self.warm_up else 0, self.rounds):
            for contender in order(self.contenders, number):
                figures = await self._measure(scenario, settings, contender, number)
                if figures and number >= 0:
                    rounds[contender.server.label].append(figures)
                    self._tell(scenario, settings, contender, number, figures)
        return [
            self.row(contender, scenario.name, settings, rounds[contender.server.label])
            for contender in self.contenders
            if rounds[contender.server.label]
        ]

    def _tell(
        self, scenario: Scenario, settings: Settings, contender: Contender, number: int, figures: Figures
    ) -> None:
        first = SHOWN[scenario.name][0]
        what = f"{name_setting(scenario.name, settings)}, round {number + 1} of {self.rounds}"
        value = show(first, figures.get(first), figures.get("requests"))
        self.say(f"{what}: {contender.server.label} {value} {name_figure(first)}")

    async def _measure(
        self, scenario: Scenario, settings: Settings, contender: Contender, number: int
    ) -> Figures:
        bench = Bench(
            server=contender.server,
            can=contender.can,
            prompts=self.prompts,
            round=number,
            timeout=self.timeout,
        )
        await asyncio.sleep(SETTLE_SECONDS)
        with self._watched(contender):
            try:
                return await scenario.measure(bench, warming(settings) if number < 0 else settings)
            except Unable as reason:
                if number <= 0:
                    self.say(f"{contender.server.label} is left out of {scenario.name}: {reason}")
            except ConnectionError as failure:
                self.say(f"{contender.server.label} failed in {scenario.name} {settings}: {failure}")
        return {}

    def _watched(self, busy: Contender) -> ExitStack:
        """Watch the memory of the busy server and the processor time of the idle ones."""
        stack = ExitStack()
        if busy.server.pid is not None:
            memory = stack.enter_context(PeakMemory([busy.server.pid]))
            stack.callback(lambda: _note_peak(busy, memory))
        idle = [each for each in self.contenders if each is not busy and each.server.pid is not None]
        before, began = [cpu_seconds(each.server.pid or 0) for each in idle], perf_counter()

        def note_idle() -> None:
            seconds = perf_counter() - began
            for contender, earlier in zip(idle, before, strict=True):
                contender.idle_cpu_seconds += cpu_seconds(contender.server.pid or 0) - earlier
                contender.idle_seconds += seconds

        stack.callback(note_idle)
        return stack

    def resources(self) -> Iterator[Row]:
        """Memory and start-up of each server whose process is known, over the whole run."""
        for each in self.contenders:
            if each.server.pid is not None and each.peak_bytes:
                figures = {"peak_rss_mib": each.peak_bytes / MIB}
                if len(self.contenders) > 1:
                    figures["idle_cpu_percent"] = each.idle_percent
                if each.start_seconds is not None:
                    figures["start_s"] = each.start_seconds
                yield self.row(each, "resources", {}, [figures])

    def warnings(self) -> Iterator[str]:
        """What makes the figures doubtful."""
        for each in self.contenders:
            if each.idle_percent > IDLE_PERCENT:
                yield (
                    f"{each.server.label} took {each.idle_percent:.0f} % of a core while it was idle: "
                    "the others' figures are too low"
                )

    def row(self, contender: Contender, scenario: str, settings: Settings, rounds: list[Figures]) -> Row:
        """A row of this run."""
        server = contender.server
        described: dict[str, Any] = {
            "label": server.label,
            "version": server.version,
            "dtype": server.dtype,
            "model": server.model,
            "reference": contender is self.contenders[0],
        }
        moment = self.began.isoformat(timespec="seconds")
        return Row(
            run=f"{self.began:%Y%m%dT%H%M%SZ}",
            date=moment,
            **self.where,
            server=described,
            scenario=scenario,
            settings=settings | {"seed": self.prompts.seed, "form": self.prompts.form},
            rounds=rounds,
        )


def order(contenders: Sequence[T], number: int) -> list[T]:
    """The order of a round: forwards, backwards, forwards, …."""
    return list(contenders) if number % 2 == 0 else list(reversed(contenders))


def with_pid(contender: Contender, pid: int, seconds: float) -> Contender:
    """A contender that was started here."""
    return replace(contender, server=replace(contender.server, pid=pid), start_seconds=seconds)


def _note_peak(contender: Contender, memory: PeakMemory) -> None:
    contender.peak_bytes = max(contender.peak_bytes, *memory.peak.values())
