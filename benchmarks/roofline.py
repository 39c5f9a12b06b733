"""What this machine could do for a model, and how much of it the engine reaches.

    python benchmarks/roofline.py MODEL_ROOT --dtype float32

Decoding a batch cannot be faster than its matrix products alone. They are timed as the engine multiplies,
by oneDNN with weights packed once, and by torch as it is; the fastest is the bound. Products and steps of the
engine are timed in turn, round after round, in this process, with nothing else running.
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
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from transom.engine.core import Engine
from transom.engine.linear import Product, Weight, linears
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

Multiply = Callable[[Tensor], object]
"""Rows [rows, in] times a weight."""


def main(arguments: Sequence[str]) -> int:
    """Print the machine's bounds, the model's, and what the engine reaches."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    with torch.inference_mode():
        print(f"memory reads: {read_bandwidth():.1f} GB/s")
        for name, way in WAYS.items():
            print(f"matrix products by {name}: {product_peak(dtype, way):.0f} GFLOP/s")
        products = ModelProducts(options.root, dtype)
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


def _by_tiles(weight: Weight) -> Multiply:
    product = Product(weight)
    return lambda rows: product(rows.float().numpy())


def _by_onednn(weight: Weight) -> Multiply:
    """By operators that are private to torch."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.matrix.contiguous(), 32)  # noqa: SLF001
    linear = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
    return lambda rows: linear(rows, packed, weight.bias, "none", [], "")


def _by_torch(weight: Weight) -> Multiply:
    return lambda rows: nn.functional.linear(rows, weight.matrix, weight.bias)


WAYS = {"the engine's tiles": _by_tiles, "oneDNN": _by_onednn, "torch": _by_torch}


class ModelProducts:
    """Every linear layer of a model, in each of `WAYS`.

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
        head = weights.pop(_HEAD, None)
        self._layers = {
            name: [(weight.matrix.shape[1], way(weight)) for weight in weights.values()]
            for name, way in WAYS.items()
        }
        self._head = {
            name: [] if head is None else [(head.matrix.shape[1], way(head))] for name, way in WAYS.items()
        }

    def seconds(self, rows: int, way: str) -> float:
        """Time of all products with `rows` rows, once; beyond batches that are decoded, without the head."""
        products = self._layers[way] + (self._head[way] if rows <= max(DECODE_ROWS) else [])
        inputs = {width: torch.randn(rows, width).to(self.dtype) for width, _ in products}
        with torch.inference_mode():
            began = perf_counter()
            for width, multiply in products:
                multiply(inputs[width])
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
    product_times = {(rows, way): list[float]() for rows in (*DECODE_ROWS, PREFILL_ROWS) for way in WAYS}
    step_times: dict[int, list[float]] = {rows: [] for rows in DECODE_ROWS}
    for number in range(-1, rounds):
        for (rows, way), times in product_times.items():
            found = [products.seconds(rows, way) for _ in range(3)]
            times.extend(found if number >= 0 else [])  # the first round warms up
        for rows, times in step_times.items():
            stepped = decoder.step_seconds(rows, steps)
            times.extend(stepped if number >= 0 else [])
    medians = {setting: statistics.median(times) for setting, times in product_times.items()}
    yield ""
    yield f"all products, ms   {'   '.join(f'{way:>18}' for way in WAYS)}"
    for rows in (*DECODE_ROWS, PREFILL_ROWS):
        columns = "   ".join(f"{1e3 * medians[rows, way]:18.1f}" for way in WAYS)
        yield f"{rows:4} rows          {columns}{'   (without the head)' * (rows == PREFILL_ROWS)}"
    yield ""
    yield "rows  bound, ms  bound, tokens/s  engine step, ms  engine, tokens/s  reached"
    for rows in DECODE_ROWS:
        bound = min(medians[rows, way] for way in WAYS)
        reached = statistics.median(step_times[rows])
        yield (
            f"{rows:4}  {1e3 * bound:9.1f}  {rows / bound:15.0f}  {1e3 * reached:15.1f}"
            f"  {rows / reached:16.0f}  {100 * bound / reached:5.0f} %"
        )


def read_bandwidth(mebibytes: int = 256, rounds: int = 7) -> float:
    """GB/s at which all threads together read memory: the best of some sums of a large tensor."""
    numbers = torch.ones(mebibytes << 18)
    return numbers.nbytes / 1e9 / _best(numbers.sum, rounds)


def product_peak(
    dtype: torch.dtype, way: Callable[[Weight], Multiply], size: int = 1536, rounds: int = 5
) -> float:
    """GFLOP/s of square matrix products: the best of some."""
    weight, rows = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    multiply = way(Weight(weight, None))
    return 2 * size**3 / 1e9 / _best(lambda: multiply(rows), rounds)


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
