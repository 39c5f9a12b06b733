"""nnsight, local: its own idiom for each task. See `hooks` for how it is asked."""

# mypy: ignore-errors
# ruff: noqa: PERF401  # traces are written as loops; what is appended is a promise of a value

from __future__ import annotations

import sys
from pathlib import Path

import nnsight
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.inside import work
from benchmarks.inside.hooks import BATCH, answer


class NNsight:
    """The tasks."""

    def __init__(self, root: str) -> None:
        self._model = nnsight.LanguageModel(root, device_map="cpu", torch_dtype=torch.float32, dispatch=True)
        self._layers = self._model.model.layers
        self._count = len(self._layers)

    def capture(self) -> float:
        found = []
        for start in range(0, work.PROMPTS, BATCH):
            ids = torch.tensor([work.prompt(i) for i in range(start, start + BATCH)])
            kept = []
            with self._model.trace(ids):
                for layer in self._layers:
                    kept.append(layer.output.save())
            found.append(list(kept))
        return sum(float(kept[-1][0, -1, 0]) for kept in found)

    def lens(self) -> float:
        total = 0.0
        for start in range(0, work.PROMPTS, BATCH):
            ids = torch.tensor([work.prompt(i) for i in range(start, start + BATCH)])
            kept = []
            with self._model.trace(ids):
                for layer in self._layers:
                    normed = self._model.model.norm(layer.output[:, -1])
                    kept.append(torch.log_softmax(self._model.lm_head(normed), -1).max(-1).values.save())
            total += float(list(kept)[-1][0])
        return total

    def _streams(self, ids):
        kept = []
        with self._model.trace(ids):
            for layer in self._layers:
                kept.append(layer.output.save())
        return list(kept)

    def sweep(self) -> float:
        """One cell a trace."""
        clean, changed = (torch.tensor([ids]) for ids in work.pair())
        source = self._streams(clean)
        grid = torch.empty(self._count, work.SWEPT, 2)
        for index in range(self._count):
            for place in range(work.SWEPT):
                value = source[index][:, place]
                with self._model.trace(changed):
                    self._layers[index].output[:, place] = value
                    logits = self._model.lm_head.output[:, -1].save()
                grid[index, place] = logits[0, list(work.TARGETS)]
        return float(grid[3, 5, 0])

    def sweep_batched(self) -> float:
        """All positions of a layer in one trace."""
        clean, changed = (torch.tensor([ids]) for ids in work.pair())
        source = self._streams(clean)
        rows = changed.repeat(work.SWEPT, 1)
        every = torch.arange(work.SWEPT)
        grid = torch.empty(self._count, work.SWEPT, 2)
        for index in range(self._count):
            value = source[index][0]
            with self._model.trace(rows):
                self._layers[index].output[every, every] = value
                logits = self._model.lm_head.output[:, -1].save()
            grid[index] = logits[:, list(work.TARGETS)]
        return float(grid[3, 5, 0])


if __name__ == "__main__":
    torch.set_num_threads(2)
    answer(NNsight(sys.argv[1]))
