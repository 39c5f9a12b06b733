"""The logit lens: the final norm and the output matrix, applied to rows from anywhere in the residual stream.

(nostalgebraist, "interpreting GPT: the logit lens", 2020.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transom.engine.attention import floats
from transom.internals.board import Floats
from transom.internals.values import Value
from transom.schema.program import ReadSpec, Unembed

_BLOCK = 32
"""Rows of one piece; others wait for it no longer than for a step."""

Rows = Callable[[Tensor], Tensor]


@dataclass
class Look:
    """Rows on their way through the lens."""

    spec: Unembed
    value: Value
    pieces: list[Callable[[], None]]
    logprobs: list[Floats] = field(default_factory=list)
    ids: list[NDArray[np.int32]] = field(default_factory=list)

    def values(self, name: str) -> dict[str, Value]:
        """What was seen, once every piece is done."""
        shape, axes = self.value.array.shape[:-1], self.value.axes[:-1]
        last = "rank" if self.spec.topk else "token"
        logprobs = np.concatenate(self.logprobs)
        found = {name: Value(logprobs.reshape(*shape, logprobs.shape[-1]), (*axes, last))}
        if self.spec.topk:
            ids = np.concatenate(self.ids)
            found[f"{name}.ids"] = Value(ids.reshape(*shape, ids.shape[-1]), (*axes, last))
        return found


class Lens:
    """Applies the end of a model to rows of its residual stream.

    Args:
        norm: the final norm, [rows, width] to the same.
        logits: the output matrix, [rows, width] to [rows, vocabulary].
    """

    def __init__(self, norm: Rows, logits: Rows) -> None:
        self._norm = norm
        self._logits = logits

    def look(self, spec: ReadSpec, value: Value) -> Look:
        """Begin; the pieces are to be called in their order."""
        look = Look(spec.unembed, value, [])
        rows = np.ascontiguousarray(value.array).reshape(-1, value.array.shape[-1])
        normed = spec.sites[0].point == "final_norm"
        look.pieces.extend(partial(self._see, block, look, normed=normed) for block in _blocks(rows))
        return look

    def _see(self, rows: Floats, look: Look, *, normed: bool) -> None:
        hidden = torch.from_numpy(rows)
        with torch.inference_mode():
            logits = self._logits(hidden if normed else self._norm(hidden))
        logprobs = log_softmax(floats(logits))
        if look.spec.topk:
            ids = np.stack([_best(row, look.spec.topk) for row in logprobs])
            look.ids.append(ids)
            logprobs = np.take_along_axis(logprobs, ids, axis=-1)
        elif look.spec.targets:
            logprobs = logprobs[:, list(look.spec.targets)]
        look.logprobs.append(logprobs)


def _blocks(rows: Floats) -> Iterator[Floats]:
    for start in range(0, max(1, len(rows)), _BLOCK):
        yield rows[start : start + _BLOCK]


def _best(row: Floats, count: int) -> NDArray[np.int32]:
    """Indices of the largest numbers, best first, ties by the lower index."""
    least = np.partition(row, -count)[-count]
    those = np.flatnonzero(row >= least)
    found: NDArray[np.int32] = those[np.argsort(-row[those], kind="stable")][:count].astype(np.int32)
    return found


def log_softmax(logits: Floats) -> Floats:
    """[rows, vocabulary] to the same; each row summed in float64, in one order."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted, dtype=np.float64).sum(axis=-1, keepdims=True)
    found: Floats = (shifted - np.log(total)).astype(np.float32)
    return found
