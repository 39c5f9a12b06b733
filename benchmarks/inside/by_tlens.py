"""TransformerLens: its bridge to transformers' modules, in its own idiom. See `hooks` for how it is asked."""

# mypy: ignore-errors
# ruff: noqa: ARG001  # hooks are called with their place by name

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.inside import work
from benchmarks.inside.hooks import BATCH, answer


def _stream(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


class TransformerLens:
    """The tasks."""

    def __init__(self, root: str) -> None:
        self._model = TransformerBridge.boot_transformers(root, dtype=torch.float32, device="cpu")
        self._count = self._model.cfg.n_layers
        self._names = {_stream(layer) for layer in range(self._count)}

    def _cached(self, ids):
        _, cache = self._model.run_with_cache(ids, names_filter=lambda name: name in self._names)
        return [cache[_stream(layer)] for layer in range(self._count)]

    def _batches(self):
        for start in range(0, work.PROMPTS, BATCH):
            yield torch.tensor([work.prompt(i) for i in range(start, start + BATCH)])

    def capture(self) -> float:
        found = [self._cached(ids) for ids in self._batches()]
        return sum(float(kept[-1][0, -1, 0]) for kept in found)

    def lens(self) -> float:
        total = 0.0
        for ids in self._batches():
            last = torch.stack([stream[:, -1] for stream in self._cached(ids)])
            logits = self._model.unembed(self._model.ln_final(last))
            total += float(torch.log_softmax(logits, -1).max(-1).values[-1, 0])
        return total

    def sweep(self) -> float:
        """One cell a run."""
        clean, changed = (torch.tensor([ids]) for ids in work.pair())
        source = self._cached(clean)
        grid = torch.empty(self._count, work.SWEPT, 2)
        for layer in range(self._count):
            for place in range(work.SWEPT):

                def patch(value, hook, layer=layer, place=place):
                    value[:, place] = source[layer][:, place]
                    return value

                logits = self._model.run_with_hooks(changed, fwd_hooks=[(_stream(layer), patch)])
                grid[layer, place] = logits[0, -1, list(work.TARGETS)]
        return float(grid[3, 5, 0])

    def sweep_batched(self) -> float:
        """All positions of a layer in one run."""
        clean, changed = (torch.tensor([ids]) for ids in work.pair())
        source = self._cached(clean)
        rows, every = changed.repeat(work.SWEPT, 1), torch.arange(work.SWEPT)
        grid = torch.empty(self._count, work.SWEPT, 2)
        for layer in range(self._count):

            def patch(value, hook, layer=layer):
                value[every, every] = source[layer][0]
                return value

            logits = self._model.run_with_hooks(rows, fwd_hooks=[(_stream(layer), patch)])
            grid[layer] = logits[:, -1, list(work.TARGETS)]
        return float(grid[3, 5, 0])


if __name__ == "__main__":
    torch.set_num_threads(2)
    answer(TransformerLens(sys.argv[1]))
