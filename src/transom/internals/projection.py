"""Rows of a value along each row of a matrix: what the encoder of a sparse autoencoder reads.

A matrix can have a hundred million numbers, and everybody's next token waits for whatever is done between two
steps. So it is gone through piece by piece. Each product of two rows is summed in float64, on its own and in
one order: it has the same bits as the same direction alone, whatever stands beside it in the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from transom.internals.values import Value

BLOCK = 1 << 18
"""Numbers of the matrix that are worked on together."""

PIECE = 1 << 21
"""Products that are summed at once: a few milliseconds."""


class Projection:
    """A value on its way through a matrix.

    Args:
        value: [..., width].
        matrix: [directions, width].

    Raises:
        ValueError: they do not fit each other.
    """

    def __init__(self, value: Value, matrix: Value) -> None:
        width = value.array.shape[-1]
        if matrix.array.ndim != 2 or matrix.array.shape[1] != width:
            raise ValueError(
                f"the matrix has shape {list(matrix.array.shape)}, and what is read is {width} wide"
            )
        self._rows = value.array.reshape(-1, width)
        self._matrix = matrix.array
        self._found = np.empty((len(self._rows), len(self._matrix)), np.float32)
        self._shape = (*value.array.shape[:-1], len(self._matrix))
        self._axes = (*value.axes[:-1], "direction")
        self._pieces = self._work()

    def work(self) -> bool:
        """Do a piece; whether that was the last."""
        return next(self._pieces, None) is None

    @property
    def value(self) -> Value:
        """What came of it, [..., directions], once all of it is done."""
        return Value(self._found.reshape(self._shape), self._axes)

    def _work(self) -> Iterator[int]:
        """Yields after each piece how many products were summed."""
        width = self._matrix.shape[1]
        step = max(1, BLOCK // width)
        done = 0
        for start in range(0, len(self._matrix), step):
            some = slice(start, start + step)
            block = self._matrix[some].astype(np.float64)
            for index, row in enumerate(self._rows):
                # What is too large for a float32 is infinite, as it is anywhere in such arithmetic.
                with np.errstate(over="ignore", invalid="ignore"):
                    self._found[index, some] = (row.astype(np.float64) * block).sum(axis=-1)
                done += block.size
                if done >= PIECE:
                    yield done
                    done = 0
