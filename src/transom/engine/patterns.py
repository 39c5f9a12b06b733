"""Attention patterns, for whoever reads or writes them.

The kernel that attends never forms the matrix of all scores. Where somebody asks for them, the scores of
their rows are computed from the same queries and keys, with the model's own window, cap and sinks; and where
somebody writes probabilities, the heads' outputs of these rows are computed from what was written.
"""

from __future__ import annotations

import numpy as np

from transom.engine.kernels.arrays import Floats
from transom.engine.kernels.pattern import mix, probabilities, scores
from transom.engine.parts import Attention
from transom.internals.board import Board, Posted


def touch_patterns(attention: Attention, query: Floats, mixed: Floats, board: Board) -> None:
    """Do what is posted at the rotated keys, the scores and the probabilities of a layer.

    Args:
        attention: of the layer; the keys and values of this forward are in its cache.
        query: [rows, heads, dim], rotated.
        mixed: what each head gives [rows, heads, value_dim]; written over where probabilities are.
        board: what is posted.
    """
    index = attention.index
    for posted in board.posted("k_rot", index):
        view = _View(attention, posted)
        found = view.keys[:, view.positions].transpose(1, 0, 2)
        posted.action(np.ascontiguousarray(found).reshape(len(view.positions), -1))
    for posted in board.posted("attn_scores", index):
        posted.action(_View(attention, posted).scores(query).reshape(-1, posted.width))
    written: dict[int, Floats] = {}
    for posted in board.posted("attn_probs", index):
        _touch_probabilities(_View(attention, posted), posted, query, mixed, written)


def _touch_probabilities(
    view: _View, posted: Posted, query: Floats, mixed: Floats, written: dict[int, Floats]
) -> None:
    """Read or write probabilities; `written` holds those of each row that somebody wrote before."""
    found = view.probabilities(query)
    for place, row in enumerate(view.rows):
        found[place] = written.get(int(row), found[place])
    posted.action(found.reshape(len(found), -1))
    if posted.writes:
        view.blind(found)
        mixed[view.rows] = view.mixed(found)
        written.update(zip(view.rows.tolist(), found, strict=True))


class _View:
    """The rows of an action, and the keys and values of the sequence that they belong to."""

    def __init__(self, attention: Attention, posted: Posted) -> None:
        rows = posted.rows
        self.rows = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        self.keys, self._values, self.positions = attention.paged.kept(attention.index, self.rows)
        self._shape = attention.paged.specs[attention.index].shape
        self._window = self._shape[1]
        self._sinks = attention.heads[2]
        self._width = posted.width // len(self._sinks)

    def scores(self, query: Floats) -> Floats:
        """[rows, heads, keys], scaled and capped; -inf where a row does not see a key."""
        found = np.full((len(self.rows), query.shape[1], self._width), -np.inf, np.float32)
        scores(query[self.rows], self.keys, self.positions, self._shape, found)
        return found

    def probabilities(self, query: Floats) -> Floats:
        """[rows, heads, keys]; 0 where a row does not see a key."""
        found = self.scores(query)
        probabilities(found, self._sinks)
        return found

    def blind(self, probabilities: Floats) -> None:
        """Take away the weight of keys that a row does not see.

        Slots behind a row hold what comes later, or what another sequence has left there.
        """
        age = self.positions[:, None] - np.arange(self._width)
        unseen = age < 0
        if self._window > 0:
            unseen |= age >= self._window
        probabilities[np.broadcast_to(unseen[:, None], probabilities.shape)] = 0

    def mixed(self, probabilities: Floats) -> Floats:
        """[rows, heads, keys] to what the heads give, [rows, heads, value_dim]."""
        found = np.zeros((*probabilities.shape[:2], self._values.shape[2]), np.float32)
        mix(probabilities, self._values, found)
        return found
