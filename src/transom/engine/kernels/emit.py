"""Where matrices lie, and the types that llvmlite lacks, for what emits LLVM instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

Code = Any
"""A value or a type of numba or of llvmlite, neither of which declares any."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, for which llvmlite has no name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix begins, and how far its rows are from each other."""

    first: Code
    stride: Code

    def row(self, builder: Code, number: Code, plus: int = 0) -> Code:
        """Pointer to the beginning of a row, or to what comes so much later."""
        if isinstance(number, int):
            number = ir.Constant(_I64, number)
        at = builder.add(builder.mul(self.stride, number), ir.Constant(_I64, plus))
        return builder.gep(self.first, [at])


def unpack(context: Code, builder: Code, kind: Code, place: Code) -> Place:
    """(array, offset, stride) to a pointer and the stride."""
    array, at, stride = (builder.extract_value(place, i) for i in range(3))
    at, stride = (
        context.cast(builder, value, one, types.intp)
        for value, one in zip((at, stride), kind.types[1:], strict=True)
    )
    made = context.make_array(kind[0])(context, builder, array)
    return Place(builder.gep(made.data, [at]), stride)


def fetch(builder: Code, place: Code) -> None:
    """Ask for the line of memory at `place`, into the second of the processor's caches."""
    kinds = (ir.IntType(8).as_pointer(), _I32, _I32, _I32)
    fetch = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0"
    )
    reading, second_cache, data = (ir.Constant(_I32, value) for value in (0, 2, 1))
    builder.call(fetch, (builder.bitcast(place, kinds[0]), reading, second_cache, data))
