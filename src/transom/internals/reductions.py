"""What a run has read, reduced before it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from transom.errors import PlanFailed
from transom.internals.projection import Projection
from transom.internals.values import Value
from transom.schema.program import ReadSpec, RunSpec


def reduced(run: RunSpec, spec: ReadSpec, value: Value, values: Mapping[str, Value]) -> Value:
    """What a reduction makes of a value.

    Raises:
        PlanFailed: there is nothing to reduce, or a direction does not fit.
    """
    with _said_of(run, spec):
        return _reduction(spec, value, values)


def projection_of(run: RunSpec, spec: ReadSpec, value: Value, values: Mapping[str, Value]) -> Projection:
    """What takes a value through a matrix; raises as `reduced` does."""
    with _said_of(run, spec):
        return Projection(value, values[spec.direction])


@contextmanager
def _said_of(run: RunSpec, spec: ReadSpec) -> Iterator[None]:
    """Say of a read what is wrong with its values."""
    try:
        yield
    except ValueError as error:
        param = f"runs.{run.origin}.read.{spec.name}"
        raise PlanFailed(f"{param}: {error}.", param=param) from error


def _reduction(spec: ReadSpec, value: Value, values: Mapping[str, Value]) -> Value:
    match spec.reduce:
        case "mean":
            return value.mean("pos")
        case "norm":
            return value.norm()
        case "project":
            return value.project(values[spec.direction])
        case _:
            return value
