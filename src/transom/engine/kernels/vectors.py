"""Vectors of LANES numbers, for what emits LLVM instructions; LLVM turns each into what the processor has.

Every operation rounds on its own, as in what numba compiles, so the two give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from transom.engine.kernels.elementary import LN2_HIGH, LN2_LOW, LOG2E, exp_near_zero
from transom.engine.kernels.emit import BFloat, Code
from transom.engine.kernels.tile import LANES

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_NUMBERS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(_I32, LANES)
_COUNTS = ir.VectorType(_I64, LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_BFLOATS = ir.VectorType(BFloat(), LANES)


NONE = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [0] * LANES)
"""The mask of no lanes."""


@dataclass(frozen=True, slots=True)
class Vector:
    """LANES float32 numbers; what it is combined with may be a number that all lanes share."""

    builder: Code
    value: Code

    __array_ufunc__ = None
    """numpy's numbers leave it to the vector what to do with them."""

    def __add__(self, other: Vector | float | np.float32) -> Vector:
        return self._with(self.builder.fadd, other)

    def __sub__(self, other: Vector | float | np.float32) -> Vector:
        return self._with(self.builder.fsub, other)

    def __mul__(self, other: Vector | float | np.float32) -> Vector:
        return self._with(self.builder.fmul, other)

    def __rmul__(self, other: float) -> Vector:
        return self._with(self.builder.fmul, other)

    def at_least(self, other: Vector | float | np.float32) -> Vector:
        """The larger of the two; `other` where this is no number."""
        right = self._same(other)
        larger = self.builder.fcmp_ordered(">", self.value, right)
        return Vector(self.builder, self.builder.select(larger, self.value, right))

    def below(self, other: Vector) -> Code:
        """The mask of lanes that are lower than the other's."""
        return self.builder.fcmp_ordered("<", self.value, other.value)

    def where(self, mask: Code, otherwise: float) -> Vector:
        """The other number in lanes that are not of the mask."""
        return Vector(self.builder, self.builder.select(mask, self.value, self._same(otherwise)))

    def times_power(self, powers: Code) -> Vector:
        """Times 2 to the power of each lane, which is added to the exponent's bits."""
        bits = self.builder.bitcast(self.value, _WORDS)
        raised = self.builder.add(bits, self.builder.shl(powers, ir.Constant(_WORDS, [23] * LANES)))
        return Vector(self.builder, self.builder.bitcast(raised, _NUMBERS))

    def reduce(self, operation: Callable[[Vector, Vector], Vector]) -> Code:
        """One number, of halves of the lanes again and again."""
        lanes, found = LANES, self
        while lanes > 1:
            lanes //= 2
            upper = [(i + lanes) % LANES for i in range(LANES)]
            mask = ir.Constant(_WORDS, upper)
            turned = self.builder.shuffle_vector(found.value, found.value, mask)
            found = operation(found, Vector(self.builder, turned))
        return self.builder.extract_element(found.value, ir.Constant(_I32, 0))

    def _with(self, operation: Callable[..., Code], other: Vector | float | np.float32) -> Vector:
        return Vector(self.builder, operation(self.value, self._same(other)))

    def _same(self, other: Vector | float | np.float32) -> Code:
        return other.value if isinstance(other, Vector) else constant(self.builder, other).value


def constant(builder: Code, number: float | np.float32) -> Vector:
    """The same number in all lanes."""
    return Vector(builder, ir.Constant(_NUMBERS, [float(number)] * LANES))


def splat(builder: Code, number: Code) -> Vector:
    """A number that is computed, in all lanes."""
    return Vector(builder, _same_in_all(builder, number, _NUMBERS))


def load(builder: Code, place: Code) -> Vector:
    """The vector that begins at a place."""
    loaded = builder.load(builder.bitcast(place, _NUMBERS.as_pointer()))
    loaded.align = 4
    return Vector(builder, loaded)


def of_words(builder: Code, place: Code) -> Vector:
    """The vector of unsigned words that begin at a place, rounded to numbers."""
    loaded = builder.load(builder.bitcast(place, _WORDS.as_pointer()))
    loaded.align = 4
    return Vector(builder, builder.uitofp(loaded, _NUMBERS))


def any_of(builder: Code, mask: Code) -> Code:
    """Whether some lane is of the mask, as numba has it."""
    bits = builder.bitcast(mask, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))


def store(vector: Vector, place: Code) -> None:
    """Write a vector from a place on."""
    builder = vector.builder
    builder.store(vector.value, builder.bitcast(place, _NUMBERS.as_pointer())).align = 4


def within(builder: Code, index: Code, low: Code, high: Code) -> Code:
    """The mask of lanes whose numbers, counted from `index`, lie from `low` up to `high`."""
    lanes = builder.add(_counts(builder, index), ir.Constant(_COUNTS, list(range(LANES))))
    return builder.and_(
        builder.icmp_signed(">=", lanes, _counts(builder, low)),
        builder.icmp_signed("<", lanes, _counts(builder, high)),
    )


def _counts(builder: Code, count: Code) -> Code:
    return _same_in_all(builder, count, _COUNTS)


def _same_in_all(builder: Code, number: Code, kind: Code) -> Code:
    nothing = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(nothing, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, nothing, ir.Constant(_WORDS, [0] * LANES))


def exp(x: Vector) -> Vector:
    """The exponential of numbers from UNDERFLOW to 0, to about 1 ulp; see `elementary.exp_in_place`."""
    builder = x.builder
    powers = builder.fptosi((x * LOG2E - 0.5).value, _WORDS)
    n = Vector(builder, builder.sitofp(powers, _NUMBERS))
    r = x - n * LN2_HIGH - n * LN2_LOW
    near: Vector = exp_near_zero.py_func(r)  # type: ignore[attr-defined]
    return near.times_power(powers)


def rounded(vector: Vector) -> tuple[Code, Vector]:
    """bfloat16 numbers, to nearest even, denormal ones zero: as halves of words, and as numbers again.

    Only where the processor multiplies pairs of them.
    """
    builder = vector.builder
    kind = ir.FunctionType(_BFLOATS, [_NUMBERS])
    name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * LANES}"
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    halves = builder.bitcast(builder.call(function, [vector.value]), _HALVES)
    wide = builder.shl(builder.zext(halves, _WORDS), ir.Constant(_WORDS, [16] * LANES))
    return halves, Vector(builder, builder.bitcast(wide, _NUMBERS))


def store_halves(builder: Code, halves: Code, place: Code) -> None:
    """LANES halves of words from a place on."""
    builder.store(halves, builder.bitcast(place, _HALVES.as_pointer())).align = 2
