"""The tile of matrix products by Intel's Advanced Matrix Extensions: 32 rows by 32 columns, of pairs.

It computes what `tile` computes of pairs of bfloat16, with other roundings. A number of the result is one
chain over blocks of STEP pairs in ascending order, and what the processor adds for a block is a function of
that number's row and column alone (TDPBF16PS in Intel's Software Developer's Manual, volume 2). So no row
knows of another here either, whatever the number of rows.

The registers are eight squares of 16 lines of 64 bytes: four of sums, two of rows, two of weights.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Sequence

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from transom.engine.kernels.emit import Code, Place, unpack

ROWS = 32
"""Most rows of a tile."""

COLUMNS = 32
"""Columns of a tile."""

STEP = 16
"""Pairs that are multiplied at once; a tile's depth is a multiple of it."""

_LINES = 16
"""Lines of a register, of 64 bytes each."""

_SUMS, _ROWS, _WEIGHTS = ((0, 1), (2, 3)), (4, 5), (6, 7)
"""Numbers of the registers: sums by lines and columns, rows, weights."""

_ARCH_PRCTL, _ASK, _TILE_DATA = 158, 0x1023, 18


def _may_use() -> bool:
    """Ask for the registers, which Linux gives a process only if it asks (arch/x86/xstate.rst)."""
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("amx-tile") and features.get("amx-bf16") and features.get("avx512bf16")):
        return False
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) == 0)


HAS_AMX = _may_use()
"""Whether this process may multiply by these tiles."""

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_BYTES = _I8.as_pointer()


def _shapes(rows: int) -> bytes:
    """The 64 bytes that say how large the registers are for tiles of so many rows (LDTILECFG)."""
    lines = [0] * 8
    for half in range(2):
        own = max(0, min(_LINES, rows - half * _LINES))
        for number in (*_SUMS[half], _ROWS[half]):
            lines[number] = own
    for number in _WEIGHTS:
        lines[number] = _LINES
    widths = [64 if count else 0 for count in lines]
    return struct.pack("<BB14x8H16x8B8x", 1, 0, *widths, *lines)


_ALL_SHAPES = bytearray(b"".join(_shapes(rows) for rows in range(ROWS + 1)))


class _Emitter:
    """Emits the processor's instructions for tiles."""

    def __init__(self, builder: Code) -> None:
        self._builder = builder

    def call(self, name: str, *operands: Code) -> None:
        """An instruction; whole numbers among its operands are registers."""
        values = [ir.Constant(_I8, each) if isinstance(each, int) else each for each in operands]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self._builder.call(
            cgutils.get_or_insert_function(self._builder.module, kind, f"llvm.x86.{name}"),  # type: ignore[no-untyped-call]
            values,
        )

    def at(self, place: Code, offset: Code) -> Code:
        """The place so many bytes later."""
        return self._builder.gep(place, [offset])

    def bytes(self, number: int) -> Code:
        """A constant."""
        return ir.Constant(_I64, number)

    def times(self, value: Code, factor: int) -> Code:
        """A multiple."""
        return self._builder.mul(value, self.bytes(factor))


def _in_bytes(context: Code, builder: Code, kind: Code, part: Code) -> Place:
    """Where a matrix of four-byte elements begins, and the distance of its rows, in bytes."""
    place = unpack(context, builder, kind, part)
    return Place(builder.bitcast(place.first, _BYTES), builder.mul(place.stride, ir.Constant(_I64, 4)))


def _generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
    """Emit one block for up to 16 rows and one for more."""
    x, w, out = (
        _in_bytes(context, builder, kind, part)
        for kind, part in zip(signature.args[:3], args[:3], strict=True)
    )
    depth, rows, keep = args[3], args[4], builder.trunc(args[5], ir.IntType(1))
    emit = _Emitter(builder)
    many = builder.icmp_signed(">", rows, ir.Constant(_I64, _LINES))
    with builder.if_else(many) as (two, one):
        with two:
            _emit(builder, emit, (x, w, out), depth, keep, halves=2)
        with one:
            _emit(builder, emit, (x, w, out), depth, keep, halves=1)
    return context.get_dummy_value()


def _generate_shape(context: Code, builder: Code, _signature: Code, args: Sequence[Code]) -> Code:
    emit = _Emitter(builder)
    table = cgutils.global_constant(  # type: ignore[no-untyped-call]
        builder.module,
        "transom_amx_shapes",
        cgutils.make_bytearray(_ALL_SHAPES),  # type: ignore[no-untyped-call]
    )
    emit.call("ldtilecfg", emit.at(builder.bitcast(table, _BYTES), emit.times(args[0], 64)))
    return context.get_dummy_value()


def _generate_release(context: Code, builder: Code, _signature: Code, _args: Sequence[Code]) -> Code:
    _Emitter(builder).call("tilerelease")
    return context.get_dummy_value()


def _emit(
    builder: Code,
    emit: _Emitter,
    matrices: tuple[Place, Place, Place],
    depth: Code,
    keep: Code,
    halves: int,
) -> None:
    """Load or clear the sums, loop over blocks of pairs, store the sums."""
    x, w, out = matrices
    lines = range(halves)
    places = {
        _SUMS[half][side]: emit.at(
            out.first, builder.add(emit.times(out.stride, _LINES * half), emit.bytes(64 * side))
        )
        for half in lines
        for side in range(2)
    }
    with builder.if_else(keep) as (kept, fresh):
        with kept:
            for number, place in places.items():
                emit.call("tileloadd64", number, place, out.stride)
        with fresh:
            for number in places:
                emit.call("tilezero", number)
    before = builder.block
    loop, after = builder.append_basic_block("blocks"), builder.append_basic_block("stored")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_I64)
    own, weights = emit.at(x.first, emit.times(k, 4)), emit.at(w.first, builder.mul(w.stride, k))
    # A register is loaded as late as can be, while the processor still multiplies by others.
    for half in lines:
        emit.call("tileloadd64", _ROWS[half], emit.at(own, emit.times(x.stride, _LINES * half)), x.stride)
        for side in range(2):
            if half == 0:
                emit.call("tileloadd64", _WEIGHTS[side], emit.at(weights, emit.bytes(64 * side)), w.stride)
            emit.call("tdpbf16ps", _SUMS[half][side], _ROWS[half], _WEIGHTS[side])
    following = builder.add(k, ir.Constant(_I64, STEP))
    k.add_incoming(ir.Constant(_I64, 0), before)
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    builder.position_at_end(after)
    for number, place in places.items():
        emit.call("tilestored64", number, place, out.stride)


def _typed(
    _typing: Code,
    x: Code,
    w: Code,
    out: Code,
    depth: Code,  # noqa: ARG001
    rows: Code,  # noqa: ARG001
    keep: Code,  # noqa: ARG001
) -> Code:
    return types.void(x, w, out, types.intp, types.intp, types.boolean), _generate


amx_tile: Callable[..., None] = intrinsic(_typed)
"""`amx_tile((x, at, stride), (w, at, stride), (out, at, stride), depth, rows, keep)`, as `tile.narrow_tile`.

x and w hold pairs of bfloat16 as uint32; depth counts pairs, a multiple of STEP and not 0; w and out have
COLUMNS columns; rows are at most ROWS, and those of the latest `shape_registers`. Only where `HAS_AMX`.
"""


def _typed_shape(_typing: Code, rows: Code) -> Code:  # noqa: ARG001
    return types.void(types.intp), _generate_shape


shape_registers: Callable[..., None] = intrinsic(_typed_shape)
"""Make the registers of the thread fit tiles of so many rows, which takes about as long as such a tile."""


def _typed_release(_typing: Code) -> Code:
    return types.void(), _generate_release


release_registers: Callable[..., None] = intrinsic(_typed_release)
"""Give them back."""
