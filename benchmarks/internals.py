"""The same work inside a model: by Transom over HTTP, and by plain hooks and libraries, each in a process.

    OPENAI_API_KEY=… python benchmarks/internals.py --base-url http://127.0.0.1:8600/v1 \\
        --model-root .transom/models/smollm2-135m-instruct --nnsight VENV/bin/python --rounds 3

Each round does every task once by each, in turn; medians are printed, and with --keep rows are kept. What
each found is compared by a number of it.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.inside import work
from benchmarks.load.machine import describe_commit, describe_machine
from benchmarks.load.rows import RESULTS, Row, append
from benchmarks.load.table import lines
from transom.client import Client

UNITS = {
    "capture": work.PROMPTS,
    "lens": work.PROMPTS,
    "sweep": 30 * work.SWEPT,
    "sweep_batched": 30 * work.SWEPT,
    "steer": work.STEERED * work.NEW_TOKENS,
    "in_turn": work.RESEARCHERS,
    "at_once": work.RESEARCHERS,
}
"""What a task counts: prompts, cells, tokens, plans."""

SAME = {"sweep_batched": "sweep"}
"""Tasks that are another way to do one."""


class Worker(Protocol):
    """Somebody who can do tasks."""

    label: str
    tasks: Sequence[str]

    def do(self, task: str) -> Done:
        """Do one."""
        ...


class Done(NamedTuple):
    """A task that was done."""

    seconds: float
    number: float
    """One of what was found; 0 where there is none to compare."""


class Process:
    """A worker in a process and an environment of its own, asked line by line.

    Args:
        label: what to call it.
        python: of the environment.
        script: below `benchmarks/inside`.
        root: of the model.
        tasks: that it knows.
    """

    def __init__(self, label: str, python: str, script: str, root: Path, tasks: Sequence[str]) -> None:
        self.label, self.tasks = label, tasks
        path = Path(__file__).parent / "inside" / script
        self._process = subprocess.Popen(
            [python, str(path), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        if self._line() != "ready":
            raise OSError(f"{label} did not start; try: {python} {path} {root}")

    def do(self, task: str) -> Done:
        """Do one; seconds as the process measured them."""
        assert self._process.stdin is not None
        print(task, file=self._process.stdin, flush=True)
        seconds, number = self._line().split()
        return Done(float(seconds), float(number))

    def end(self) -> None:
        """Let it go: at the end of its input it ends by itself, and what it has started with it."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Ours:
    """A server, asked over HTTP; what it answers is decoded, as a researcher would."""

    label = "ours"
    tasks: Sequence[str] = ("capture", "lens", "sweep", "steer", "in_turn", "at_once")

    def __init__(self, base_url: str, key: str | None) -> None:
        self._client = Client(base_url, key, timeout=600)
        self.model = self._client.models()[0].id

    def do(self, task: str) -> Done:
        """Do one; seconds with HTTP included."""
        did: Callable[[], float] = getattr(self, f"_{task}")
        began = perf_counter()
        number = did()
        return Done(perf_counter() - began, number)

    def _trace(self, runs: dict[str, Any], returns: list[str], **more: Any) -> Mapping[str, Any]:
        plan = {"model": self.model, "runs": runs, "return": returns} | more
        found = self._client.trace(plan)
        return {name: tensor.data for name, tensor in found.items()}

    def _reads(self, read: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        runs = {
            f"p{i}": {"input": {"token_ids": work.prompt(i)}, "read": {"x": read}}
            for i in range(work.PROMPTS)
        }
        return runs, [f"{name}.x" for name in runs]

    def _capture(self) -> float:
        found = self._trace(*self._reads({"at": "resid_post.*"}))
        return float(sum(found[f"p{i}.x"][-1, -1, 0] for i in work.COMPARED))

    def _lens(self) -> float:
        lens = {"at": "resid_post.*", "pos": "last", "reduce": {"unembed": {"topk": 1}}}
        found = self._trace(*self._reads(lens))
        return float(sum(found[f"p{i}.x.logprobs"][-1, -1, 0] for i in work.COMPARED))

    def _sweep(self) -> float:
        clean, changed = ({"input": {"token_ids": ids}} for ids in work.pair())
        read = {"out": {"at": "lm_head", "pos": "last", "unit": list(work.TARGETS)}}
        write = [{"at": "resid_post.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}}]
        runs = {"clean": clean, "changed": changed, "patched": changed | {"read": read, "write": write}}
        found = self._trace(runs, ["patched.out"], sweep={"layer": "all", "pos": "all"})
        return float(found["patched.out"][3, 5].ravel()[0])

    def _steer(self) -> float:
        strength = work.STEERING_STRENGTH / 10
        write = [{"at": f"resid_post.{work.STEERING_LAYER}", "op": "add", "value": strength}]
        generate = {"max_tokens": work.NEW_TOKENS, "ignore_eos": True}
        runs = {
            f"p{i}": {"input": {"token_ids": work.prompt(i, 16)}, "generate": generate, "write": write}
            for i in range(work.STEERED)
        }
        return float(self._trace(runs, [f"{name}.tokens" for name in runs])["p0.tokens"][-1])

    def _research(self, number: int) -> None:
        """What one of many researchers asks: a short steered generation, and what it was inside."""
        write = [{"at": "resid_post.15", "op": "add", "value": 0.1}]
        read = {"x": {"at": "resid_post.*", "pos": "last"}}
        run = {
            "input": {"token_ids": work.prompt(number, 24)},
            "generate": {"max_tokens": 24, "ignore_eos": True},
            "write": write,
            "read": read,
        }
        self._trace({"a": run}, ["a.x", "a.tokens"])

    def _in_turn(self) -> float:
        for number in range(work.RESEARCHERS):
            self._research(number)
        return 0.0

    def _at_once(self) -> float:
        with ThreadPoolExecutor(work.RESEARCHERS) as pool:
            list(pool.map(self._research, range(work.RESEARCHERS)))
        return 0.0


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep."""
    options = _parse(arguments)
    ours = Ours(options.base_url, options.key)
    peers = list(_peers(options))
    workers: list[Worker] = [ours, *peers]
    try:
        found = _measured(workers, options.tasks, options.rounds)
    finally:
        for peer in peers:
            peer.end()
    rows = _rows(found, ours.model)
    for line in lines(rows):
        print(line)
    if options.keep:
        append(rows, RESULTS)
    return 0


def _peers(options: argparse.Namespace) -> Iterator[Process]:
    root = options.model_root
    yield Process("plain hooks", sys.executable, "hooks.py", root, Ours.tasks[:4])
    libraries = (
        ("nnsight", options.nnsight, "by_nnsight.py"),
        ("TransformerLens", options.transformer_lens, "by_tlens.py"),
    )
    for label, python, script in libraries:
        if python:
            yield Process(label, python, script, root, ("capture", "lens", "sweep", "sweep_batched"))
    if options.interp_engine:
        tasks = ("capture", "lens", "steer", "in_turn", "at_once")
        yield Process("interp-engine's server", options.interp_engine, "by_interp.py", root, tasks)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/internals.py", description="Work inside a model.")
    add = parser.add_argument
    add("--base-url", default=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8600/v1"))
    add("--key", default=os.environ.get("OPENAI_API_KEY"), help="else OPENAI_API_KEY")
    add("--model-root", type=Path, required=True, help="of the model that the server serves, for the peers")
    add("--nnsight", help="Python of an environment with nnsight; left out, it is not measured")
    add("--transformer-lens", help="the same of one with TransformerLens")
    add("--interp-engine", help="the same of one with interp-engine and its server, such as Transom's own")
    add("--tasks", nargs="+", choices=UNITS, default=list(UNITS), help="which are done (default all)")
    add("--rounds", type=int, default=3, help="how often each task is done by each (default 3)")
    add("--keep", action="store_true", help="append the rows to benchmarks/results")
    return parser.parse_args(arguments)


def _measured(
    workers: Sequence[Worker], tasks: Sequence[str], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Seconds of each round, by task and worker."""
    numbers: dict[str, float] = {}
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for task in tasks:
            for worker in workers:
                if task in worker.tasks:
                    done = worker.do(task)
                    found.setdefault((task, worker.label), []).append(done.seconds)
                    said = f"{done.seconds:.2f} s, found {done.number:.5g}"
                    print(f"round {number + 1} {task} {worker.label} {said}", file=sys.stderr)
                    _compare(numbers, task, worker.label, done.number)
    return found


def _compare(numbers: dict[str, float], task: str, label: str, number: float) -> None:
    """Hold what was found against what the first worker found.

    Raises:
        ValueError: they did not do the same.
    """
    first = numbers.setdefault(SAME.get(task, task), number)
    if not math.isclose(first, number, rel_tol=1e-3, abs_tol=1e-3):
        raise ValueError(f"{task}: {label} found {number}, and others {first}")


def _rows(found: dict[tuple[str, str], list[float]], model: str) -> list[Row]:
    now = datetime.now(UTC)
    about: dict[str, Any] = {
        "run": f"{now:%Y%m%dT%H%M%SZ}",
        "date": now.isoformat(timespec="seconds"),
        **describe_commit(),
        "machine": describe_machine(),
    }
    return [
        Row(
            **about,
            server={
                "label": label if task not in SAME else f"{label}, batched",
                "version": "",
                "dtype": "float32",
                "model": model,
                "reference": label == "ours",
            },
            scenario="inside",
            settings={"task": SAME.get(task, task), "units": UNITS[task]},
            rounds=[{"done_per_s": UNITS[task] / each} for each in seconds],
        )
        for (task, label), seconds in found.items()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
