"""Plain PyTorch on transformers' modules, batched, and with what is known kept: what a careful person writes.

    python benchmarks/inside/hooks.py MODEL_ROOT

Answers each line with a task's name on standard input by one line with seconds and a number to compare.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.inside import work

BATCH = 16


class Hooks:
    """The tasks."""

    def __init__(self, root: str) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32)
        self._layers = self._model.model.layers

    def _captured(self, ids: Tensor, keep: Callable[[Tensor], Tensor]) -> list[Tensor]:
        kept: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _m, _a, out: kept.append(keep(_first(out))))
            for layer in self._layers
        ]
        self._model.model(ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        return kept

    def capture(self) -> float:
        found = []
        for start in range(0, work.PROMPTS, BATCH):
            ids = torch.tensor([work.prompt(i) for i in range(start, start + BATCH)])
            found.append(self._captured(ids, lambda out: out.clone()))
        return sum(float(kept[-1][0, -1, 0]) for kept in found)

    def lens(self) -> float:
        total = 0.0
        for start in range(0, work.PROMPTS, BATCH):
            ids = torch.tensor([work.prompt(i) for i in range(start, start + BATCH)])
            last = torch.stack(self._captured(ids, lambda out: out[:, -1]))
            logprobs = torch.log_softmax(self._model.lm_head(self._model.model.norm(last)), -1)
            total += float(logprobs.max(-1).values[-1, 0])
        return total

    def sweep(self) -> float:
        """Each cell begins at its layer, from what the unchanged run has there."""
        clean, changed = (torch.tensor([ids]) for ids in work.pair())
        source = self._captured(clean, lambda out: out.clone())
        base = self._captured(changed, lambda out: out.clone())
        positions = torch.arange(work.SWEPT)[None]
        rotation = self._model.model.rotary_emb(base[0], positions)
        grid = torch.empty(len(self._layers), work.SWEPT, 2)
        for index in range(len(self._layers)):
            for place in range(work.SWEPT):
                hidden = base[index].clone()
                hidden[:, place] = source[index][:, place]
                for layer in self._layers[index + 1 :]:
                    hidden = _first(
                        layer(
                            hidden, attention_mask=None, position_embeddings=rotation, position_ids=positions
                        )
                    )
                logits = self._model.lm_head(self._model.model.norm(hidden[:, -1]))
                grid[index, place] = logits[0, list(work.TARGETS)]
        return float(grid[3, 5, 0])

    def steer(self) -> float:
        ids = torch.tensor([work.prompt(i, 16) for i in range(work.STEERED)])
        direction = torch.ones(self._model.config.hidden_size) * work.STEERING_STRENGTH / 10
        hook = self._layers[work.STEERING_LAYER].register_forward_hook(
            lambda _m, _a, out: _first(out) + direction
        )
        found = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=work.NEW_TOKENS,
            min_new_tokens=work.NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        hook.remove()
        return float(found[0, -1])


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def answer(tasks: object) -> None:
    """Do what is asked, line by line."""
    print("ready", flush=True)
    for line in sys.stdin:
        began = perf_counter()
        with torch.no_grad():
            number = getattr(tasks, line.strip())()
        print(f"{perf_counter() - began} {number}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    answer(Hooks(sys.argv[1]))
