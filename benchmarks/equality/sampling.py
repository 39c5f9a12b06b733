"""Sampling and whole distributions: the documented draw, from the plain model's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from benchmarks.equality.experiment import Experiment, Found
from benchmarks.equality.plain import Plain

_TEXT = "The window above the door was open, and"
_TOKENS = 5
_SEED = -7
_PATH = "/v1/completions"

Choose = Callable[[Tensor, int, int], int]
"""From logits [vocabulary], position and choice, to a token."""


def sampling() -> Experiment:
    """Two seeded choices, two through filters, and a greedy one."""
    body = {
        "prompt": _TEXT,
        "max_tokens": _TOKENS,
        "seed": _SEED,
        "logprobs": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "distributions": list(range(_TOKENS)),
    }
    hot = body | {"temperature": 0.9, "n": 2, "prompt_distributions": [1, 2, 3, 4, 5, 6, 7, 8]}
    filtered = body | {"temperature": 1.3, "top_k": 40, "top_p": 0.8, "n": 2}
    greedy = body | {"temperature": 0}
    requests = [(_PATH, each) for each in (hot, filtered, greedy)]
    return Experiment("sampling", requests, _reference, absolute=("logprobs",))


def _reference(plain: Plain) -> Found:
    filters = [TemperatureLogitsWarper(1.3), TopKLogitsWarper(40), TopPLogitsWarper(0.8)]
    choosers: list[tuple[Choose, int]] = [
        (_drawing([TemperatureLogitsWarper(0.9)]), 2),
        (_drawing(filters), 2),
        (lambda logits, _position, _choice: int(logits.argmax()), 1),
    ]
    found: Found = {}
    for request, (choose, choices) in enumerate(choosers):
        for choice in range(choices):
            parts = _written(plain, choose, choice)
            if request:
                del parts["prompt_distributions"]
            found |= {f"{request}.{choice}.{name}": value for name, value in parts.items()}
    return found


def _written(plain: Plain, choose: Choose, choice: int) -> Found:
    """What is generated token by token."""
    ids = plain.ids(_TEXT)
    prompt = len(ids)
    for _ in range(_TOKENS):
        logits = plain.run(ids, only_last=True).logits[0, -1]
        ids.append(choose(logits, len(ids), choice))
    logprobs = torch.log_softmax(plain.run(ids[:-1]).logits[0], -1)
    tokens = torch.tensor(ids[prompt:])
    generated = logprobs[prompt - 1 :]
    return {
        "tokens": tokens.numpy(),
        "logprobs": generated.gather(1, tokens[:, None])[:, 0].numpy(),
        "distributions": generated.numpy(),
        "prompt_distributions": logprobs[:8].numpy(),
    }


def _drawing(filters: list[Any]) -> Choose:
    """Gumbel-max with the noise of `docs/explanation/reproducibility.md`, after transformers' own filters."""
    shaped = LogitsProcessorList(filters)

    def choose(logits: Tensor, position: int, choice: int) -> int:
        nothing: Any = torch.empty(1, 0, dtype=torch.long)
        scores = shaped(nothing, logits[None])[0].double().numpy()
        return int((scores + noise(_SEED, position, choice, len(scores))).argmax())

    return choose


def noise(seed: int, position: int, choice: int, vocabulary: int) -> NDArray[np.float64]:
    """Of each token, by Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011)."""
    low, shift = np.uint64(2**32 - 1), np.uint64(32)
    first = np.arange(-(-vocabulary // 4), dtype=np.uint64)
    counter = [first, *(np.full_like(first, number) for number in (position, choice, 0))]
    key = [np.uint64(seed % 2**64) & low, np.uint64(seed % 2**64) >> shift]
    for _ in range(10):
        left, right = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [
            (right >> shift) ^ counter[1] ^ key[0],
            right & low,
            (left >> shift) ^ counter[3] ^ key[1],
            left & low,
        ]
        key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
    words = np.stack(counter, axis=1).reshape(-1)[:vocabulary]
    found: NDArray[np.float64] = -np.log(-np.log1p(-(words + 0.5) / 2.0**32))
    return found
