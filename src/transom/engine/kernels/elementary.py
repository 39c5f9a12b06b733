"""The exponential, and the highest of many numbers, as every kernel computes them."""

from __future__ import annotations

import numpy as np

from transom.engine.kernels.arrays import Floats, Ints
from transom.engine.kernels.compile import kernel

LOG2E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
UNDERFLOW = np.float32(-87.0)


@kernel
def exp_near_zero(r: np.float32) -> np.float32:
    """exp(r) for |r| <= ln 2 / 2: Cephes' expf polynomial (Moshier 1989); no operation is fused.

    `vectors` is given the same formula, of a vector.
    """
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return p * r * r + r + np.float32(1.0)


@kernel
def exp_in_place(values: Floats, shift: np.float32, exponents: Ints) -> None:
    """Values = exp(values - shift) for values <= shift, to about 1 ulp.

    Written out so that the compiler can vectorise it and so that no mathematics library, whose bits differ
    between machines, takes part. `exponents` is scratch.
    """
    for i in range(values.shape[0]):
        x = max(values[i] - shift, UNDERFLOW)
        # x <= 0, so truncation after subtracting a half rounds to nearest.
        n = np.int32(x * LOG2E - np.float32(0.5))
        r = x - np.float32(n) * LN2_HIGH - np.float32(n) * LN2_LOW
        values[i] = exp_near_zero(r)
        exponents[i] = n
    bits = values.view(np.int32)
    for i in range(bits.shape[0]):
        bits[i] += exponents[i] << np.int32(23)


@kernel
def highest(values: Floats) -> np.float32:
    """The highest of some numbers, -inf of none. Eight chains, for the compiler makes no more of one."""
    m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = np.float32(-np.inf)
    whole = values.shape[0] - values.shape[0] % 8
    for i in range(0, whole, 8):
        m0 = max(m0, values[i])
        m1 = max(m1, values[i + 1])
        m2 = max(m2, values[i + 2])
        m3 = max(m3, values[i + 3])
        m4 = max(m4, values[i + 4])
        m5 = max(m5, values[i + 5])
        m6 = max(m6, values[i + 6])
        m7 = max(m7, values[i + 7])
    for i in range(whole, values.shape[0]):
        m0 = max(m0, values[i])
    return max(m0, m4, m2, m6, m1, m5, m3, m7)
