"""What kernels are given and give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Words = NDArray[np.uint32]
Flags = NDArray[np.bool_]

Operand = NDArray[np.float32] | NDArray[np.uint32]
"""Rows that a product is given: numbers as they are, or pairs of bfloat16, as bits."""

Stored = NDArray[np.float32] | NDArray[np.uint16]
"""Numbers as they are, or rounded to bfloat16, as bits."""

Panels = NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint32]
"""[panels, depth, columns]: the columns of a weight matrix in panels, the last one filled up with zeros; as
numbers, as the bits of bfloat16, or as pairs of these."""

_LINE = 64


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that begins where a line of the cache does: a vector of it that fills a line lies in one."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _LINE, np.uint8)
    begin = -raw.ctypes.data % _LINE
    return raw[begin : begin + size].view(dtype).reshape(shape)
