"""Intel's Advanced Matrix Extensions: eight square registers, and what multiplies them, for kernels.

A register holds up to 16 lines of 64 bytes. One instruction adds to each number of a register of sums the
products of a line of one register by a column of another, pair of bfloat16 by pair; what it adds is a
function of that line and that column alone (TDPBF16PS in Intel's Software Developer's Manual, volume 2). So
whatever is made of it knows no row of another, as long as blocks of pairs come in one order. Denormal numbers
count as zero in it.

Places in memory are given as in `tile`: an array, the flat offset of the first number, the distance from line
to line, in elements.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from transom.engine.kernels import emit
from transom.engine.kernels.emit import Code, unpack
from transom.engine.kernels.target import FEATURES

LINES = 16
"""Most lines of a register."""

STEP = 16
"""Pairs in a line: what is multiplied at once."""

_ARCH_PRCTL, _ASK, _TILE_DATA = 158, 0x1023, 18


def _may_use() -> bool:
    """Ask for the registers, which Linux gives a process only if it asks (arch/x86/xstate.rst)."""
    if not {"amx-tile", "amx-bf16", "avx512bf16"} <= FEATURES:
        return False
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) == 0)


HAS_AMX = _may_use()
"""Whether this process may multiply by these registers."""

Shapes = NDArray[np.uint8]
"""How large the registers are, [kinds of work, 64]; see `shapes`."""

_I8, _I64 = ir.IntType(8), ir.IntType(64)


def shapes(kinds: Sequence[Sequence[tuple[int, int]]]) -> Shapes:
    """For each kind of work lines and bytes of a line of all registers, as LDTILECFG wants to be told."""
    found = []
    for registers in kinds:
        lines = [count for count, _ in registers]
        widths = [width if count else 0 for count, width in registers]
        found.append(struct.pack("<BB14x8H16x8B8x", 1, 0, *widths, *lines))
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(kinds), 64)


def _instruction(builder: Code, name: str, *operands: Code) -> None:
    """An instruction; whole numbers among its operands are registers."""
    values = [ir.Constant(_I8, each) if isinstance(each, int) else each for each in operands]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"),  # type: ignore[no-untyped-call]
        values,
    )


def _moving(name: str) -> Callable[..., Any]:
    """The intrinsic that moves a register from or to memory."""

    def typed(_typing: Code, number: Code, place: Code) -> Code:
        size = place[0].dtype.bitwidth // 8

        def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
            there = unpack(context, builder, signature.args[1], args[1])
            first = builder.bitcast(there.first, _I8.as_pointer())
            apart = builder.mul(there.stride, ir.Constant(_I64, size))
            _instruction(builder, name, number.literal_value, first, apart)
            return context.get_dummy_value()

        return types.void(number, place), generate

    return intrinsic(prefer_literal=True)(typed)


def _working(name: str, *numbers: Code) -> Callable[..., Code]:
    """What emits an instruction that works on registers alone."""

    def generate(context: Code, builder: Code, _signature: Code, _args: Sequence[Code]) -> Code:
        _instruction(builder, name, *(number.literal_value for number in numbers))
        return context.get_dummy_value()

    return generate


def _release(_typing: Code) -> Code:
    return types.void(), _working("tilerelease")


def _clear(_typing: Code, number: Code) -> Code:
    return types.void(number), _working("tilezero", number)


def _add_products(_typing: Code, sums: Code, left: Code, right: Code) -> Code:
    return types.void(sums, left, right), _working("tdpbf16ps", sums, left, right)


def _fetch(_typing: Code, place: Code, lines: Code) -> Code:  # noqa: ARG001
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        first = unpack(context, builder, signature.args[0], args[0]).first
        first = builder.bitcast(first, _I8.as_pointer())
        with cgutils.for_range(builder, args[1], intp=_I64) as loop:
            emit.fetch(builder, builder.gep(first, [builder.mul(loop.index, ir.Constant(_I64, 64))]))
        return context.get_dummy_value()

    return types.void(place, types.intp), generate


def _shaped(_typing: Code, table: Code, kind: Code) -> Code:  # noqa: ARG001
    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [builder.mul(args[1], ir.Constant(_I64, 64))])
        _instruction(builder, "ldtilecfg", builder.bitcast(place, _I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(table, types.intp), generate


shape: Callable[..., None] = intrinsic(_shaped)
"""`shape(table, kind)`: make the registers fit, and clear them, as slow as a tile of a product."""

release: Callable[..., None] = intrinsic(_release)
"""`release()`: give the registers back."""

fetch: Callable[..., None] = intrinsic(_fetch)
"""`fetch(place, lines)`: ask for so many lines of memory, of 64 bytes, into the second of the caches."""

load = _moving("tileloadd64")
"""`load(number, place)`: a register from memory."""

save = _moving("tilestored64")
"""`save(number, place)`: a register to memory."""

clear: Callable[..., None] = intrinsic(prefer_literal=True)(_clear)
"""`clear(number)`: a register of zeros."""

add_products: Callable[..., None] = intrinsic(prefer_literal=True)(_add_products)
"""`add_products(sums, left, right)`: left [lines, pairs] times right [pairs, columns], added to sums."""
