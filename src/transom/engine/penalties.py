"""What is taken from the logits of one sequence before a token is drawn, as arrays.

A step of many sequences must not go through their tokens one by one in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from transom.engine.kernels.arrays import Floats, Longs
from transom.schema.generation import SamplingParams

_FIRST = 64
"""Room for distinct tokens at the beginning; it doubles."""


class Penalties:
    """Penalties and bias of one sequence.

    OpenAI's formula, over generated tokens: logit - count * frequency - (count > 0) * presence + bias.

    Args:
        params: of the sequence.
        generated: tokens that it has generated already.
    """

    def __init__(self, params: SamplingParams, generated: Sequence[int] = ()) -> None:
        self._params = params
        self._frequency, self._presence = params.frequency_penalty, params.presence_penalty
        self._bias_ids: Longs = np.array([token for token, _ in params.logit_bias], np.int64)
        self._bias: Floats = np.array([bias for _, bias in params.logit_bias], np.float32)
        self._slots: dict[int, int] = {}
        self._ids: Longs = np.empty(_FIRST, np.int64)
        self._counts: Longs = np.zeros(_FIRST, np.int64)
        self._counted = 0
        for token_id in generated:
            self.count(token_id)

    def count(self, token_id: int) -> None:
        """Take note of a generated token."""
        self._counted += 1
        if not (self._frequency or self._presence):
            return
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token_id
        self._counts[slot] += 1

    def after(self, generated: Sequence[int]) -> Self:
        """The same after all these tokens, the first of which are those that were counted.

        They are counted on where they are more, and from the beginning where they are fewer: a step that
        broke may have counted tokens that are to be judged again.
        """
        if not (self._frequency or self._presence):
            return self
        if len(generated) < self._counted:
            return type(self)(self._params, generated)
        for token_id in generated[self._counted :]:
            self.count(token_id)
        return self

    def __bool__(self) -> bool:
        """Whether they change anything."""
        return bool(self._slots) or bool(len(self._bias_ids))

    def apply(self, line: Floats) -> None:
        """Change the logits [vocabulary] of the next token, in place."""
        known = len(self._slots)
        taken = self._counts[:known] * self._frequency + self._presence
        line[self._ids[:known]] -= taken.astype(np.float32)
        line[self._bias_ids] += self._bias
