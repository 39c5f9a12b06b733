"""What is measured: decoding, prefill, scoring, multiple choice, determinism.

A scenario has settings, and gives figures for one setting, one server and one round. Prompts are drawn for
the setting and the round, so each server gets the same ones, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

from benchmarks.load.determinism import compare_answers
from benchmarks.load.figures import Figures, percentiles_ms
from benchmarks.load.outcome import Outcome, read_stream, read_whole
from benchmarks.load.prompts import Prompt, Prompts
from benchmarks.load.server import SCORING, Abilities, Server, completion, volley
from benchmarks.load.wire import Reply

Settings = dict[str, Any]


class Unable(Exception):
    """A server cannot be asked what a scenario asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One server in one round."""

    server: Server
    can: Abilities
    prompts: Prompts
    round: int
    """From 0; -1 to warm up."""
    timeout: float = 600.0
    """Seconds that one reply may take."""

    def prompt(self, tokens: int, *purpose: object) -> Prompt:
        """A prompt of this round."""
        return self.prompts.draw(tokens, self.round, *purpose)

    def seed(self, *purpose: object) -> int:
        """A seed of this round."""
        return self.prompts.draw_seed(self.round, *purpose)

    async def send(self, bodies: Sequence[Mapping[str, Any]], concurrency: int) -> tuple[list[Reply], float]:
        """Send completions, `concurrency` at a time.

        Returns:
            The replies, and the share of a core that the load generator took, in per cent.
        """
        requests = [completion(self.server, dict(body)) for body in bodies]
        before = process_time()
        replies = await volley(self.server, requests, concurrency, self.timeout)
        seconds = max(reply.ended for reply in replies) - min(reply.started for reply in replies)
        return replies, 100 * (process_time() - before) / seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A name, the settings that are measured, and how."""

    name: str
    settings: tuple[Settings, ...]
    measure: Callable[[Bench, Settings], Awaitable[Figures]]


async def decode(bench: Bench, settings: Settings) -> Figures:
    """Output tokens/s, time to the first token and between tokens, of streams."""
    bodies = [
        _decode_body(
            bench, settings, bench.prompt(settings["prompt_tokens"], "decode", _kind(settings), index), index
        )
        for index in range(settings["requests"])
    ]
    replies, client = await bench.send(bodies, settings["concurrency"])
    outcomes = [read_stream(reply) for reply in replies]
    well = _well(outcomes)
    firsts = [each.first_token_seconds for each in well if each.first_token_seconds is not None]
    gaps = [gap for each in well for gap in each.gaps]
    output = sum(each.output_tokens for each in well)
    return (
        {"output_tokens_per_s": output / _span(outcomes)}
        | percentiles_ms("ttft", firsts)
        | percentiles_ms("itl", gaps)
        | _counts(outcomes, client)
    )


def _decode_body(bench: Bench, settings: Settings, prompt: Prompt, index: int) -> dict[str, Any]:
    body = {
        "prompt": prompt,
        "max_tokens": settings["max_tokens"],
        "temperature": settings["temperature"],
        "stream": True,
    }
    if settings["temperature"]:
        body["seed"] = bench.seed("decode", _kind(settings), index)
    if bench.can.ignore_eos:
        body["ignore_eos"] = True
    if bench.can.usage:
        body["stream_options"] = {"include_usage": True}
    return body


def _kind(settings: Settings) -> str:
    """What tells apart settings whose prompts must differ."""
    return f"{settings['concurrency']}/{settings.get('temperature')}"


async def prefill(bench: Bench, settings: Settings) -> Figures:
    """Prompt tokens/s of long prompts that are continued by one token."""
    bodies = [
        {
            "prompt": bench.prompt(settings["prompt_tokens"], "prefill", index),
            "max_tokens": 1,
            "temperature": 0,
        }
        for index in range(settings["requests"])
    ]
    replies, client = await bench.send(bodies, settings["concurrency"])
    return _prompt_figures("prompt_tokens_per_s", [read_whole(reply) for reply in replies], client)


async def scoring(bench: Bench, settings: Settings) -> Figures:
    """Scored tokens/s of prompts whose every token's logprob is asked for."""
    bodies = [
        {"prompt": bench.prompt(settings["prompt_tokens"], "scoring", index)} | _scoring_fields(bench)
        for index in range(settings["requests"])
    ]
    replies, client = await bench.send(bodies, settings["concurrency"])
    return _prompt_figures("scored_tokens_per_s", [read_whole(reply) for reply in replies], client)


async def choice(bench: Bench, settings: Settings) -> Figures:
    """Scored tokens/s of questions: prompts that share a context and differ in their endings."""
    fields = _scoring_fields(bench)
    bodies: list[dict[str, Any]] = []
    for index in range(settings["requests"]):
        branches = bench.prompts.draw_branches(
            settings["choices"],
            settings["context_tokens"],
            settings["ending_tokens"],
            bench.round,
            "choice",
            index,
        )
        bodies += (
            [{"prompt": branches} | fields]
            if bench.can.lists
            else [{"prompt": branch} | fields for branch in branches]
        )
    concurrency = settings["concurrency"] * (1 if bench.can.lists else settings["choices"])
    replies, client = await bench.send(bodies, concurrency)
    return _prompt_figures("scored_tokens_per_s", [read_whole(reply) for reply in replies], client)


def _scoring_fields(bench: Bench) -> dict[str, Any]:
    if bench.can.scoring is None:
        raise Unable("it does not give the logprobs of prompts")
    return SCORING[bench.can.scoring] | {"temperature": 0}


async def determinism(bench: Bench, settings: Settings) -> Figures:
    """Whether seeded requests give the same answers alone, one by one, and beside others."""
    if not bench.can.logprobs:
        raise Unable("it does not give logprobs")
    ours = [_seeded_body(bench, settings, "ours", index) for index in range(settings["requests"])]
    others = [
        _seeded_body(bench, settings, "others", index) for index in range(settings["beside"] + 1 - len(ours))
    ]
    alone, _ = await bench.send(ours, 1)
    beside, _ = await bench.send([*ours, *others], len(ours) + len(others))
    return compare_answers(alone, beside[: len(ours)])


def _seeded_body(bench: Bench, settings: Settings, purpose: str, index: int) -> dict[str, Any]:
    # Lengths differ, so that sequences join and leave the batch at different steps.
    tokens = settings["prompt_tokens"] + 7 * index % 32
    body = {
        "prompt": bench.prompt(tokens, "determinism", purpose, index),
        "seed": bench.seed("determinism", purpose, index),
        "max_tokens": settings["max_tokens"],
        "temperature": 1.0,
        "logprobs": 5,
    }
    return body | ({"ignore_eos": True} if bench.can.ignore_eos else {})


def _prompt_figures(name: str, outcomes: Sequence[Outcome], client: float) -> Figures:
    well = _well(outcomes)
    tokens = sum(each.prompt_tokens for each in well)
    seconds = [each.ended - each.started for each in well]
    figures = {name: tokens / _span(outcomes)} | percentiles_ms("latency", seconds, (50, 95))
    return figures | _counts(outcomes, client)


def _well(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that are good; the first problem, where none is."""
    well = [each for each in outcomes if each.problem is None]
    if not well:
        raise ConnectionError(f"every request failed: {outcomes[0].problem}")
    return well


def _span(outcomes: Sequence[Outcome]) -> float:
    return max(each.ended for each in outcomes) - min(each.started for each in outcomes)


def _counts(outcomes: Sequence[Outcome], client: float) -> Figures:
    return {
        "prompt_tokens": sum(each.prompt_tokens for each in outcomes),
        "output_tokens": sum(each.output_tokens for each in outcomes),
        "errors": sum(each.problem is not None for each in outcomes),
        "client_cpu_percent": client,
    }


def _decode_settings() -> Iterator[Settings]:
    for concurrency in (1, 8, 32):
        for temperature in (0.0, 1.0):
            yield {
                "concurrency": concurrency,
                "temperature": temperature,
                "prompt_tokens": 64,
                "max_tokens": 64,
                "requests": max(3, 2 * concurrency),
            }


SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        Scenario(name="decode", settings=tuple(_decode_settings()), measure=decode),
        Scenario(
            name="prefill",
            settings=({"concurrency": 8, "prompt_tokens": 512, "requests": 16},),
            measure=prefill,
        ),
        Scenario(
            name="scoring",
            settings=({"concurrency": 8, "prompt_tokens": 128, "requests": 48},),
            measure=scoring,
        ),
        Scenario(
            name="choice",
            settings=(
                {"concurrency": 8, "choices": 4, "context_tokens": 200, "ending_tokens": 10, "requests": 16},
            ),
            measure=choice,
        ),
        Scenario(
            name="determinism",
            settings=({"requests": 20, "beside": 31, "prompt_tokens": 48, "max_tokens": 48},),
            measure=determinism,
        ),
    )
}
"""Every scenario, by name."""


def scaled(scenario: Scenario, scale: float, concurrencies: Sequence[int] = ()) -> Scenario:
    """A scenario with its numbers of requests multiplied, and only settings of the given concurrencies.

    Determinism has no concurrency and always the same number of requests.
    """
    kept = [
        each
        for each in scenario.settings
        if not concurrencies or each.get("concurrency", 0) in {0, *concurrencies}
    ]
    if scenario.name == "determinism":
        return scenario
    changed = [
        each | {"requests": max(each["concurrency"], round(each["requests"] * scale))} for each in kept
    ]
    return replace(scenario, settings=tuple(changed))


def warming(settings: Settings) -> Settings:
    """The same load for a moment: enough to compile, allocate and fill what is made on first use."""
    few = {"requests": settings.get("concurrency", 1), "max_tokens": min(4, settings.get("max_tokens", 4))}
    return settings | {name: value for name, value in few.items() if name in settings}
