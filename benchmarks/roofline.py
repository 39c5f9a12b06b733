"""What this machine could do for a model, and how much of it the engine reaches.

    python benchmarks/roofline.py MODEL_ROOT --dtype float32

Decoding a batch cannot be faster than its matrix products alone, by the kernel that the engine chose. Both
are timed in turn, round after round, in this process, with nothing else running.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

# As in the engine's own process; both must be set before torch and numba are imported.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from transom.engine.core import Engine
from transom.engine.linear import LinearKernel, Weight, choose_kernel, linears
from transom.engine.loader import load
from transom.engine.messages import EngineOptions
from transom.schema.generation import SamplingParams, SequenceRequest

DECODE_ROWS = (1, 8, 32)
"""Batches that are decoded."""

PREFILL_ROWS = 512
"""Rows of a step of prefill; the output head is not part of it."""

PROMPT_TOKENS = 64

_HEAD = "lm_head"
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

Product = Callable[[Tensor], Tensor]


def main(arguments: Sequence[str]) -> int:
    """Print the machine's bounds, the model's, and what the engine reaches."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    with torch.inference_mode():
        print(f"memory reads: {read_bandwidth():.1f} GB/s")
        print(f"matrix products by torch: {product_peak(dtype, None):.0f} GFLOP/s")
        products = ModelProducts(options.root, dtype)
        print(f"matrix products by {products.kernel}: {product_peak(dtype, products.kernel):.0f} GFLOP/s")
    # The engine sets the number of threads for the whole process.
    engine = load(EngineOptions(root=options.root, dtype=options.dtype, threads=options.threads)).engine
    decoder = Decoder(engine, products.vocabulary)
    for line in measure(products, decoder, options.rounds, options.steps):
        print(line, flush=True)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/roofline.py", description=__doc__.split("\n")[0])
    parser.add_argument("root", help="folder of a model root")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=0, help="0 for one each core")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all measurements (default 5)")
    parser.add_argument("--steps", type=int, default=12, help="decode steps of each round (default 12)")
    return parser.parse_args(arguments)


class ModelProducts:
    """Every linear layer of a model, bound to the kernel that the engine would choose.

    Args:
        root: folder of a model root.
        dtype: of weights and rows.
    """

    def __init__(self, root: str, dtype: torch.dtype) -> None:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model = AutoModelForCausalLM.from_pretrained(Path(root), dtype=dtype, local_files_only=True)
        model.train(mode=False)
        found = linears(model)
        self.dtype = dtype
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        weights = stacked(found)
        self.kernel = choose_kernel(weights.values())
        bound = {name: (weight.shape[1], self.kernel.bind(weight)) for name, weight in weights.items()}
        self._head: list[tuple[int, Product]] = [bound.pop(_HEAD)] if _HEAD in bound else []
        self._layers = list(bound.values())

    def seconds(self, rows: int) -> float:
        """Time of all products with `rows` rows, once; beyond batches that are decoded, without the head."""
        products = self._layers + (self._head if rows <= max(DECODE_ROWS) else [])
        inputs = {width: torch.randn(rows, width).to(self.dtype) for width, _ in products}
        with torch.inference_mode():
            began = perf_counter()
            for width, product in products:
                product(inputs[width])
            return perf_counter() - began


def stacked(layers: Sequence[tuple[str, nn.Linear | Conv1D]]) -> dict[str, Weight]:
    """Weights by name; projections of the same input are one weight, as in the engine."""
    groups: dict[str, list[nn.Linear | Conv1D]] = {}
    for name, layer in layers:
        parent, _, leaf = name.rpartition(".")
        together = next((each for each in _TOGETHER if leaf in each), (leaf,))
        groups.setdefault(f"{parent}.{'+'.join(together)}".strip("."), []).append(layer)
    return {
        name: Weight.of(group[0]) if len(group) == 1 else Weight.stacked(group)  # type: ignore[arg-type]
        for name, group in groups.items()
    }


class Decoder:
    """Drives the engine in this process.

    Args:
        engine: an engine that does nothing else.
        vocabulary: prompts are drawn from this many ids.
    """

    def __init__(self, engine: Engine, vocabulary: int) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._number = 0

    def step_seconds(self, batch: int, steps: int) -> list[float]:
        """Times of `steps` steps that each decode one token of `batch` sequences, of new prompts."""
        for _ in range(batch):
            self._engine.submit(self._request(steps + 2))
        times: list[float] = []
        while not self._engine.idle:
            began = perf_counter()
            outputs = self._engine.step()
            seconds = perf_counter() - began
            # Steps that also prefill, or in which some have finished, are others.
            if sum(bool(output.tokens) for output in outputs) == batch:
                times.append(seconds)
        # The first of them ended the prefill.
        return times[1 : steps + 1]

    def _request(self, tokens: int) -> SequenceRequest:
        self._number += 1
        chance = random.Random(self._number)
        return SequenceRequest(
            sequence_id=str(self._number),
            prompt_token_ids=tuple(chance.randrange(256, self._vocabulary) for _ in range(PROMPT_TOKENS)),
            sampling=SamplingParams(seed=self._number, max_tokens=tokens, ignore_eos=True),
        )


def measure(products: ModelProducts, decoder: Decoder, rounds: int, steps: int) -> Iterator[str]:
    """Time products and decoding in turn; the lines of a table."""
    product_times: dict[int, list[float]] = {rows: [] for rows in (*DECODE_ROWS, PREFILL_ROWS)}
    step_times: dict[int, list[float]] = {rows: [] for rows in DECODE_ROWS}
    for number in range(-1, rounds):
        for rows, times in product_times.items():
            found = [products.seconds(rows) for _ in range(3)]
            stepped = decoder.step_seconds(rows, steps) if rows in step_times else []
            if number >= 0:  # the first round warms up
                times.extend(found)
                step_times.get(rows, []).extend(stepped)
    yield ""
    yield "rows  all products, ms  bound, tokens/s  engine step, ms  engine, tokens/s  reached"
    for rows in DECODE_ROWS:
        bound, reached = statistics.median(product_times[rows]), statistics.median(step_times[rows])
        yield (
            f"{rows:4}  {1e3 * bound:16.1f}  {rows / bound:15.0f}  {1e3 * reached:15.1f}"
            f"  {rows / reached:16.0f}  {100 * bound / reached:5.0f} %"
        )
    bound = statistics.median(product_times[PREFILL_ROWS])
    yield f"{PREFILL_ROWS:4}  {1e3 * bound:16.1f}  {PREFILL_ROWS / bound:15.0f}  (prefill, without the head)"


def read_bandwidth(mebibytes: int = 256, rounds: int = 7) -> float:
    """GB/s at which all threads together read memory: the best of some sums of a large tensor."""
    numbers = torch.ones(mebibytes << 18)
    return numbers.nbytes / 1e9 / _best(numbers.sum, rounds)


def product_peak(dtype: torch.dtype, kernel: LinearKernel | None, size: int = 1536, rounds: int = 5) -> float:
    """GFLOP/s of square matrix products by a kernel of the engine, or by torch's own: the best of some."""
    weight, rows = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    if kernel is None:
        return 2 * size**3 / 1e9 / _best(lambda: nn.functional.linear(rows, weight), rounds)
    product = kernel.bind(Weight(weight, None))
    return 2 * size**3 / 1e9 / _best(lambda: product(rows), rounds)


def _best(work: Callable[[], object], rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
