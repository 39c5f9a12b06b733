"""Derived values of a plan, as the engine is given them."""

from __future__ import annotations

from collections.abc import Callable

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
from transom.schema.program import DeriveSpec

Value = Callable[[str | Inline], str]
"""The name of what a reference stands for."""


def derived(name: str, expr: Expr, value: Value) -> DeriveSpec:
    """One derived value, `derive.…`."""
    match expr:
        case Sub():
            return DeriveSpec(name=name, op="sub", of=tuple(map(value, expr.sub)))
        case Add():
            return DeriveSpec(name=name, op="add", of=tuple(map(value, expr.add)))
        case Scale():
            return DeriveSpec(name=name, op="scale", of=(value(expr.scale[0]),), number=expr.scale[1])
        case Mean():
            return _mean(name, expr, value)
        case Stack():
            return DeriveSpec(name=name, op="stack", of=tuple(map(value, expr.stack)))
        case DotProduct():
            return DeriveSpec(name=name, op="dot", of=tuple(map(value, expr.dot)))
        case Normalize():
            return DeriveSpec(name=name, op="normalize", of=(value(expr.normalize),))
        case TopK():
            return DeriveSpec(name=name, op="topk", of=(value(expr.topk),), number=expr.k)


def _mean(name: str, expr: Mean, value: Value) -> DeriveSpec:
    if isinstance(expr.mean, list):
        return DeriveSpec(name=name, op="mean", of=tuple(map(value, expr.mean)), among=True)
    return DeriveSpec(name=name, op="mean", of=(value(expr.mean),), axis=expr.axis or "")
