"""Where the time of the engine's steps goes.

    python benchmarks/profile_step.py MODEL_ROOT --dtype float32

Times decode steps and prefill steps in this process, with nothing else running; and then the kernels in them,
with layers taken apart so that each kernel is called, and timed, from Python. What no kernel takes of the
whole step is Python, torch and Hugging Face's modules between layers.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

# As in the engine's own process; both must be set before torch and numba are imported.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transom.engine import linear, parts, sampler, stack
from transom.engine.core import Engine
from transom.engine.kernels import layer
from transom.engine.loader import load
from transom.engine.messages import EngineOptions
from transom.schema.generation import SamplingParams, SequenceRequest

KERNELS: tuple[tuple[str, Any, str], ...] = (
    ("matrix products", layer, "multiply"),
    ("attention", layer, "attend"),
    ("rotary embedding, storing", layer, "rotate_and_store"),
    ("norms, residual sums", layer, "add_norm"),
    ("norms, residual sums", layer, "rms_norm"),
    ("norms, residual sums", layer, "add"),
    ("gated activation", layer, "gate"),
    ("rounding to bfloat16", layer, "as_operand"),
    ("drawing, logprobs, ranks", sampler, "read_rows"),
)
"""What a kernel is for, and where it is called from under which name."""

Work = tuple[int, int, int, bool]
"""Sequences, prompt tokens of each, tokens to generate, and whether the prompts are scored."""

Step = tuple[float, dict[str, float]]
"""Seconds of a step, and of the kernels in it."""

WORK: dict[str, Work] = {
    "1 decoding": (1, 64, 24, False),
    "8 decoding": (8, 64, 24, False),
    "32 decoding": (32, 64, 24, False),
    "prefill of 4 x 512": (4, 512, 1, False),
    "scoring of 8 x 128": (8, 128, 1, True),
}


class Clock:
    """Adds up the time spent in kernels."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, label: str, module: Any, name: str) -> None:
        """Time each call of `module.name` from now on."""
        plain: Callable[..., Any] = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds[label] += perf_counter() - began

        setattr(module, name, timed)


TOGETHER: tuple[tuple[Any, str], ...] = (
    (layer, "product"),
    (layer, "gated"),
    (layer, "attention"),
    (linear, "product"),
    (layer, "_normed"),
    (layer, "layer"),
    (parts, "layer"),
    (stack, "layers"),
)
"""Kernels that are made of others."""


def take_apart() -> None:
    """Let Python call each kernel of a layer from now on; the results are the same."""
    for module, name in TOGETHER:
        setattr(module, name, getattr(module, name).py_func)


def main(arguments: Sequence[str]) -> int:
    """Print a table for each kind of work."""
    parser = argparse.ArgumentParser(prog="benchmarks/profile_step.py", description=__doc__.split("\n")[0])
    parser.add_argument("root", help="folder of a model root")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind of work (default 3)")
    options = parser.parse_args(arguments)
    engine = load(EngineOptions(root=options.root, dtype=options.dtype, prefix_caching=False)).engine
    clock = Clock()
    whole = {title: measure(engine, clock, work, options.rounds) for title, work in WORK.items()}
    take_apart()
    for label, module, name in KERNELS:
        clock.watch(label, module, name)
    for title, work in WORK.items():
        for line in table(title, whole[title], measure(engine, clock, work, options.rounds)):
            print(line, flush=True)
    return 0


def measure(engine: Engine, clock: Clock, work: Work, rounds: int) -> list[Step]:
    """The steps of all rounds but the first one, which warms up."""
    count, prompt, tokens, scored = work
    found = []
    for number in range(-1, rounds):
        submit(engine, count, prompt, tokens, seed=number, scored=scored)
        found.append(list(steps(engine, clock, 0 if tokens == 1 else count)))
    return list(chain.from_iterable(found[1:]))


def submit(engine: Engine, count: int, prompt: int, tokens: int, *, seed: int, scored: bool) -> None:
    """Queue `count` sequences of random prompts."""
    for index in range(count):
        chance = random.Random(f"{seed} {index} {prompt}")
        engine.submit(
            SequenceRequest(
                sequence_id=f"{seed} {index}",
                prompt_token_ids=tuple(chance.randrange(256, 49152) for _ in range(prompt)),
                sampling=SamplingParams(
                    seed=index, max_tokens=tokens, ignore_eos=True, prompt_logprobs=0 if scored else None
                ),
            )
        )


def steps(engine: Engine, clock: Clock, decoding: int) -> Iterator[Step]:
    """Run until idle: the time of each step, and of the kernels in it.

    Args:
        engine: has work.
        clock: watches its kernels.
        decoding: yield only steps that give so many sequences a token, all but the first of them; 0 for all.
    """
    first = True
    while not engine.idle:
        clock.seconds.clear()
        began = perf_counter()
        outputs = engine.step()
        seconds = perf_counter() - began
        if failed := [output.error for output in outputs if output.error]:
            raise SystemExit(f"a step broke: {failed[0]}")
        if decoding and sum(bool(output.tokens) for output in outputs) != decoding:
            continue
        if not (decoding and first):
            yield seconds, dict(clock.seconds)
        first = False


def table(title: str, steps: Sequence[Step], apart: Sequence[Step]) -> Iterator[str]:
    """Medians over steps: of the whole, and of the kernels when layers are taken apart."""
    whole = statistics.median(seconds for seconds, _ in steps)
    labels = list(dict.fromkeys(label for label, _, _ in KERNELS))
    parts = {label: statistics.median(kernels.get(label, 0.0) for _, kernels in apart) for label in labels}
    parts["everything else"] = max(0.0, whole - sum(parts.values()))
    yield f"\n{title}: a step takes {1e3 * whole:.1f} ms"
    for label, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        if seconds:
            yield f"  {label:28} {1e3 * seconds:8.2f} ms  {100 * seconds / whole:5.1f} %"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
