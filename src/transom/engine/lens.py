"""The logit lens: the final norm and the output matrix, applied to rows from anywhere in the residual stream.

(nostalgebraist, "interpreting GPT: the logit lens", 2020.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transom.engine.attention import floats
from transom.engine.kernels.read import log_softmax_rows
from transom.errors import PlanFailed
from transom.internals.board import Floats
from transom.internals.room import Room
from transom.internals.values import Value
from transom.schema.program import ReadSpec, Unembed

_BLOCK = 16
"""Rows that are looked at together, of whosever plans; others wait for them no longer than for a step."""

Rows = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Look:
    """Rows of one value on their way through the lens."""

    spec: Unembed
    value: Value
    room: Room
    """For what is seen."""
    most: int
    """Rows that were asked for; where the run ended early, there are fewer."""
    done: Callable[[dict[str, Value]], None]
    """Told what was seen, once every row is through."""
    name: str
    left: int = 0
    """Rows that are not through."""
    is_wanted: bool = True
    seen: dict[str, NDArray[Any]] = field(default_factory=dict)
    """[rows, numbers of a row] each, as far as they are through."""

    def take(self, logits: Floats) -> None:
        """Keep what is wanted of the next rows [rows, vocabulary]."""
        logprobs = logits if self.spec.logits else log_softmax(logits)
        if self.spec.topk:
            found = [_best(row, self.spec.topk) for row in logprobs]
            # A run that ended early may have left no rows.
            ids = np.array(found, np.int32).reshape(len(logprobs), self.spec.topk)
            self._keep(f"{self.name}.ids", ids)
            self._keep(f"{self.name}.logprobs", np.take_along_axis(logprobs, ids, axis=-1))
        else:
            chosen = logprobs[:, list(self.spec.targets)] if self.spec.targets else logprobs
            self._keep(self.name, chosen)
        self.left -= len(logprobs)

    def _keep(self, name: str, rows: NDArray[Any]) -> None:
        if name not in self.seen:
            shape = (self.left, rows.shape[1])
            self.seen[name] = self.room.zeros(shape, rows.dtype, most=4 * self.most * rows.shape[1])
        whole = self.seen[name]
        at = len(whole) - self.left
        whole[at : at + len(rows)] = rows

    def values(self) -> dict[str, Value]:
        """What was seen."""
        shape, axes = self.value.array.shape[:-1], self.value.axes[:-1]
        last = "rank" if self.spec.topk else "token"
        return {
            name: Value(rows.reshape(*shape, rows.shape[-1]), (*axes, last))
            for name, rows in self.seen.items()
        }


class Lens:
    """Applies the end of a model to rows of its residual stream.

    Args:
        norm: the final norm, [rows, width] to the same; None where it is not known.
        logits: the output matrix, [rows, width] to [rows, vocabulary].
    """

    def __init__(self, norm: Rows | None, logits: Rows) -> None:
        self._norm = norm
        self._logits = logits
        self._waiting: deque[tuple[Look, Floats]] = deque()

    @property
    def busy(self) -> bool:
        """Whether rows wait."""
        return bool(self._waiting)

    def look(
        self,
        spec: ReadSpec,
        value: Value,
        name: str,
        room: Room,
        done: Callable[[dict[str, Value]], None],
    ) -> Look:
        """Send the rows of a value on their way; `work` takes them along.

        Args:
            spec: of the value.
            value: its rows.
            name: of what is seen.
            room: for it.
            done: told of it.

        Raises:
            PlanFailed: they would have to be normed, and how is not known.
        """
        if self._norm is None and not spec.unembed.logits:
            raise PlanFailed("the lens needs the final norm, and which module that is is not known here")
        most = len(spec.sites) * len(spec.sites[0].positions)
        look = Look(spec.unembed, value, room, most, done, name)
        rows = np.ascontiguousarray(value.array).reshape(-1, value.array.shape[-1])
        look.left = len(rows)
        for start in range(0, max(1, len(rows)), _BLOCK):
            self._waiting.append((look, rows[start : start + _BLOCK]))
        return look

    def work(self) -> None:
        """Look at the rows that wait longest, as many as one block has."""
        taken = list(self._take())
        if not taken:
            return
        hidden = [part if look.spec.logits else self._normed(part) for look, part in taken]
        with torch.inference_mode():
            logits = floats(self._logits(torch.from_numpy(np.concatenate(hidden))))
        at = 0
        for look, part in taken:
            look.take(logits[at : at + len(part)])
            at += len(part)
            if look.left == 0:
                look.done(look.values())

    def _take(self) -> Iterator[tuple[Look, Floats]]:
        left = _BLOCK
        while self._waiting and len(self._waiting[0][1]) <= left:
            look, rows = self._waiting.popleft()
            if look.is_wanted:
                left -= len(rows)
                yield look, rows

    def _normed(self, rows: Floats) -> Floats:
        assert self._norm is not None  # noqa: S101  # `look` takes no rows that would need it
        with torch.inference_mode():
            return floats(self._norm(torch.from_numpy(rows)))


def _best(row: Floats, count: int) -> NDArray[np.int32]:
    """Indices of the largest numbers, best first, ties by the lower index."""
    least = np.partition(row, -count)[-count]
    those = np.flatnonzero(row >= least)
    found: NDArray[np.int32] = those[np.argsort(-row[those], kind="stable")][:count].astype(np.int32)
    return found


def log_softmax(logits: Floats) -> Floats:
    """[rows, vocabulary] to the same, as logprobs of prompts and of drawn tokens are."""
    found = np.empty(logits.shape, np.float32)
    log_softmax_rows(np.ascontiguousarray(logits), found)
    return found


def warm_up() -> None:
    """Compile what a first look would wait for."""
    log_softmax(np.zeros((1, 4), np.float32))
