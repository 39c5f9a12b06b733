"""Room for the numbers that a program reads: in memory, or, where they are many, in a file without a name."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from transom.schema.program import SPILLED_FROM


class Room:
    """Hands out arrays of zeros.

    The file lies in a folder without being listed there: when the last array is gone, or the process is, so
    is what it took of the disk. The kernel may write its pages out and drop them, and reads them back.

    Args:
        folder: on the disk that has the room.
        spilled: bytes of all arrays of at least `SPILLED_FROM` bytes; 0 to have them all in memory.
    """

    def __init__(self, folder: Path, spilled: int = 0) -> None:
        self._folder = folder
        self._spilled = spilled
        self._file: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0

    def open(self) -> None:
        """Take the room on disk: whatever is written to it later, it is there.

        Raises:
            OSError: there is not so much.
        """
        if self._spilled:
            with TemporaryFile(dir=self._folder) as file:
                # Before anything is mapped: to touch a page that the disk has no room for ends the process.
                os.posix_fallocate(file.fileno(), 0, self._spilled)
                self._file = np.frombuffer(mmap.mmap(file.fileno(), self._spilled), np.uint8)

    def zeros(
        self, shape: Sequence[int], dtype: DTypeLike = np.float32, *, most: int | None = None
    ) -> NDArray[Any]:
        """An array.

        Args:
            shape: of the array.
            dtype: of its numbers, 4 bytes each.
            most: bytes that were asked for, where they may have been more than it takes.

        Raises:
            RuntimeError: more is taken than was asked for.
        """
        nbytes = 4 * math.prod(shape)
        if not self._spilled or (nbytes if most is None else most) < SPILLED_FROM:
            return np.zeros(shape, dtype)
        start, self._used = self._used, self._used + nbytes
        if self._used > len(self._file):
            raise RuntimeError("more is read than was asked for")
        return self._file[start : self._used].view(dtype).reshape(shape)
