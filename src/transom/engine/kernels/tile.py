"""One small matrix product, out of which the large ones are made: a tile of a few rows by a few vectors.

`out[r, c] (+)= sum over k of x[r, k] * w[k, c]`, for a tile that the registers hold. Every number of the
result is one chain of fused multiply-adds over k in ascending order (of sums of two products, where the
processor multiplies pairs of bfloat16), whatever the shape of the tile. So a
row's result does not depend on which rows are computed beside it, nor on how a product is cut into tiles, nor
on how wide the machine's vectors are: batch invariance by construction. The tile is the micro-kernel of
Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

Numba has no vector types, so the tile is emitted as LLVM instructions on vectors of LANES numbers; LLVM turns
each into as many instructions as the processor at hand needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from transom.engine.kernels.arrays import Floats, Operand, Panels
from transom.engine.kernels.compile import kernel, uncounted_kernel
from transom.engine.kernels.emit import BFloat, Code, Place, fetch, unpack
from transom.engine.kernels.target import FEATURES

LANES = 16
"""Columns of a vector."""

ROWS, VECTORS = (8, 3) if "avx512f" in FEATURES else (6, 1)
"""Most rows of a tile, and vectors of a row of a product's tile.

Their product is as many sums as the registers hold beside a row of weights and a number of x: of 32 registers
of LANES numbers with AVX-512, of 16 of half as many without. One sum too many, and LLVM keeps all in memory.
"""

HAS_BFLOAT16_DOT = "avx512bf16" in FEATURES
"""Whether the processor multiplies pairs of bfloat16 numbers."""


PAIR_ROWS = ROWS if VECTORS > 1 else ROWS // 2
"""Most rows of a tile of two vectors."""


@kernel
def even_rows(rows: int, most: int) -> int:
    """Rows of a tile for `rows` > 0 rows: two tiles of four are faster than one of six and one of two."""
    return -(-rows // -(-rows // most))


_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SUMS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(_I32, LANES)
_HALVES = ir.VectorType(_I16, LANES)
_PAIRS = ir.VectorType(BFloat(), 2 * LANES)
_ZERO = ir.Constant(_SUMS, [0.0] * LANES)


@dataclass(frozen=True, slots=True)
class _Format:
    """How numbers of x and w are read, and how a vector of products joins the sums."""

    x: ir.Type
    """One element of x; it is broadcast."""
    w: ir.Type
    """A vector of w."""
    operation: str
    operands: ir.Type


_FMA = f"llvm.fma.v{LANES}f32"
_FORMATS = {
    (types.float32, types.float32): _Format(ir.FloatType(), _SUMS, _FMA, _SUMS),
    # bfloat16 is the upper half of a float32.
    (types.float32, types.uint16): _Format(ir.FloatType(), _HALVES, _FMA, _SUMS),
    # Two bfloat16 numbers side by side, consecutive in k.
    (types.uint32, types.uint32): _Format(_I32, _WORDS, "llvm.x86.avx512bf16.dpbf16ps.512", _PAIRS),
}


@dataclass(frozen=True, slots=True)
class _Tile:
    """What the emitted code is given."""

    x: Place
    w: Place
    apart: Sequence[Code]
    """How far each vector of a row of w is from the first."""
    out: Place
    depth: Code
    keep: Code
    aheads: Sequence[Code]
    """How far behind each vector of w that lies which is wanted next."""
    pace: Code


def _declared(
    _typing: Code,
    x: Code,
    w: Code,
    out: Code,
    depth: Code,  # noqa: ARG001
    rows: Code,  # noqa: ARG001
    keep: Code,  # noqa: ARG001
    apart: Code,
    aheads: Code,
    pace: Code,  # noqa: ARG001
) -> Code:
    many = types.UniTuple(types.intp, len(apart))  # type: ignore[no-untyped-call]
    ahead = many if isinstance(aheads, types.BaseTuple) else types.intp
    signature = types.void(x, w, out, types.intp, types.intp, types.boolean, many, ahead, types.intp)
    return signature, _generator(_FORMATS[x[0].dtype, w[0].dtype], len(apart))


_tile: Callable[..., None] = intrinsic(_declared)


def _generator(form: _Format, vectors: int) -> Callable[..., Code]:
    """What emits a tile: a call for each number of rows."""

    def generate(context: Code, builder: Code, signature: Code, args: Sequence[Code]) -> Code:
        places = (
            unpack(context, builder, kind, part) for kind, part in zip(signature.args[:3], args, strict=False)
        )
        depth, rows, keep, apart, aheads, pace = args[3:]
        given = [part for place in places for part in (place.first, place.stride)]
        given += [depth, builder.trunc(keep, ir.IntType(1)), pace]
        given += [builder.extract_value(apart, i) for i in range(vectors)]
        several = isinstance(signature.args[7], types.BaseTuple)
        given += [builder.extract_value(aheads, i) if several else aheads for i in range(vectors)]
        done = builder.append_basic_block("done")
        switch = builder.switch(rows, done)
        for count in range(1, ROWS + 1):
            block = builder.append_basic_block(f"rows{count}")
            switch.add_case(ir.Constant(_I64, count), block)
            builder.position_at_end(block)
            builder.call(_function(builder.module, form, count, vectors, given), given)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return generate


def _function(module: Code, form: _Format, rows: int, vectors: int, given: Sequence[Code]) -> Code:
    """The function of `module` that is a tile of so many rows.

    In a function of its own, that is not unrolled, a tile keeps its sums in registers. Inside a kernel LLVM
    unrolls it, moves the numbers of one step before the sums of another, and has no registers left.
    """
    kinds = [value.type for value in given]
    name = f"transom.tile.{kinds[0]}.{kinds[2]}.{rows}x{vectors}".replace("*", "")
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    for attribute in ("noinline", "optsize", "nounwind"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    x, w, out = (Place(*function.args[i : i + 2]) for i in (0, 2, 4))
    depth, keep, pace, *far = function.args[6:]
    tile = _Tile(x, w, far[:vectors], out, depth, keep, far[vectors:], pace)
    _emit(builder, form, tile, rows, vectors)
    builder.ret_void()
    return function


def _emit(builder: Code, form: _Format, tile: _Tile, rows: int, vectors: int) -> None:
    """Load the sums, loop over k, store the sums."""
    places = [
        builder.bitcast(tile.out.row(builder, row, LANES * vector), _SUMS.as_pointer())
        for row in range(rows)
        for vector in range(vectors)
    ]
    lines = [tile.x.row(builder, row) for row in range(rows)]
    first = [builder.select(tile.keep, _load(builder, place, 4), _ZERO) for place in places]
    before = builder.block
    loop, after = builder.append_basic_block("k"), builder.append_basic_block("stored")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_I64)
    sums = [builder.phi(_SUMS) for _ in places]
    step = _step(builder, form, tile, lines, k, sums)
    following = builder.add(k, ir.Constant(_I64, 1))
    for phi, start, value in zip((k, *sums), (ir.Constant(_I64, 0), *first), (following, *step), strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, tile.depth), loop, after)
    builder.position_at_end(after)
    for place, value in zip(places, step, strict=True):
        builder.store(value, place).align = 4


def _step(
    builder: Code,
    form: _Format,
    tile: _Tile,
    lines: Sequence[Code],
    k: Code,
    sums: Sequence[Code],
) -> list[Code]:
    """The sums after one more k."""
    vectors = len(tile.apart)
    paced = tile.w.row(builder, builder.lshr(k, tile.pace))
    for apart, ahead in zip(tile.apart, tile.aheads, strict=True):
        fetch(builder, builder.gep(paced, [builder.add(apart, ahead)]))
    own = tile.w.row(builder, k)
    weights = [_weights(builder, form, builder.gep(own, [apart])) for apart in tile.apart]
    joined = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(_SUMS, _argument_types(form)), form.operation
    )
    found = []
    for row, line in enumerate(lines):
        number = _splat(builder, _load(builder, builder.gep(line, [k]), 4), form.operands)
        for vector, weight in enumerate(weights):
            total = sums[row * vectors + vector]
            order = (number, weight, total) if form.operands is _SUMS else (total, number, weight)
            found.append(builder.call(joined, order))
    return found


def _argument_types(form: _Format) -> tuple[ir.Type, ...]:
    return (_SUMS,) * 3 if form.operands is _SUMS else (_SUMS, form.operands, form.operands)


def _weights(builder: Code, form: _Format, place: Code) -> Code:
    place = builder.bitcast(place, form.w.as_pointer())
    loaded = _load(builder, place, 2 if form.w is _HALVES else 4)
    if form.w is _HALVES:
        widened = builder.shl(builder.zext(loaded, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        return builder.bitcast(widened, _SUMS)
    return builder.bitcast(loaded, form.operands)


def _splat(builder: Code, number: Code, operands: ir.Type) -> Code:
    kind = ir.VectorType(number.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    same = ir.Constant(_WORDS, [0] * LANES)
    return builder.bitcast(builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), same), operands)


Rows = tuple[Operand | Panels | Floats, int, int]
"""An array, the flat offset of a tile's first number in it, and the distance from row to row."""


def _load(builder: Code, place: Code, align: int) -> Code:
    loaded = builder.load(place)
    loaded.align = align
    return loaded


@uncounted_kernel
def narrow_tile(
    x: Rows, w: Rows, out: Rows, depth: int, rows: int, keep: bool, ahead: int, pace: int
) -> None:
    """A tile of one vector.

    Each matrix comes with the flat offset of the tile's first number and the distance from row to row, in
    elements: x [rows, depth], w [depth, LANES] and out [rows, LANES], which is float32; rows at most ROWS.
    With `keep` the chains go on from what is in `out`. x and w are both float32; or x is float32 and w the
    bits of bfloat16 as uint16; or both hold pairs of bfloat16 as uint32, depth then counting pairs
    (`HAS_BFLOAT16_DOT` only).

    While row k of w is computed with, memory is asked for the row k >> pace of what lies `ahead` elements
    behind w, which will be wanted next. Else memory would be idle while later tiles compute with the same w,
    and arithmetic while the first one waits for it. (0, 0) asks for nothing new.
    """
    _tile(x, w, out, depth, rows, keep, (0,), ahead, pace)


@uncounted_kernel
def pair_tile(
    x: Rows,
    w: Rows,
    apart: int,
    out: Rows,
    depth: int,
    rows: int,
    keep: bool,
    aheads: tuple[int, int],
    pace: int,
) -> None:
    """`narrow_tile` of two vectors, side by side in `out` and `apart` in w; at most PAIR_ROWS rows."""
    _tile(x, w, out, depth, rows, keep, (0, apart), aheads, pace)


_WIDE = tuple(LANES * vector for vector in range(VECTORS))


@uncounted_kernel
def wide_tile(x: Rows, w: Rows, out: Rows, depth: int, rows: int, keep: bool, ahead: int, pace: int) -> None:
    """`narrow_tile` with VECTORS vectors a row."""
    _tile(x, w, out, depth, rows, keep, _WIDE, ahead, pace)


@kernel
def pace_of(tiles: int) -> int:
    """The pace at which so many tiles with the same w together ask for what follows once, or almost."""
    pace = 0
    while 1 << pace < tiles:
        pace += 1
    return pace
