"""Derived values of a plan, as the engine is given them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transom.schema.plans.derive import (
    Add,
    DotProduct,
    Expr,
    Mean,
    Normalize,
    Scale,
    Stack,
    Sub,
    TopK,
)
from transom.schema.plans.tensors import Inline
from transom.schema.program import DeriveOp, DeriveSpec

Value = Callable[[str | Inline], str]
"""The name of what a reference stands for."""


def derived(name: str, expr: Expr, value: Value) -> DeriveSpec:
    """One derived value, `derive.…`."""
    match expr:
        case Scale(scale=(of, number)):
            return DeriveSpec(name=name, op="scale", of=(value(of),), number=number)
        case Mean():
            return _mean(name, expr, value)
        case TopK():
            return DeriveSpec(name=name, op="topk", of=(value(expr.topk),), number=expr.k)
        case Normalize():
            return DeriveSpec(name=name, op="normalize", of=(value(expr.normalize),))
        case _:
            op, operands = _operands(expr)
            return DeriveSpec(name=name, op=op, of=tuple(map(value, operands)))


def _operands(expr: Sub | Add | Stack | DotProduct) -> tuple[DeriveOp, Sequence[str | Inline]]:
    match expr:
        case Sub():
            return "sub", expr.sub
        case Add():
            return "add", expr.add
        case Stack():
            return "stack", expr.stack
        case DotProduct():
            return "dot", expr.dot


def _mean(name: str, expr: Mean, value: Value) -> DeriveSpec:
    if isinstance(expr.mean, list):
        return DeriveSpec(name=name, op="mean", of=tuple(map(value, expr.mean)), among=True)
    return DeriveSpec(name=name, op="mean", of=(value(expr.mean),), axis=expr.axis or "")
