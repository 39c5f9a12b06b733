"""From traces to a plan: names for everything that is needed, and references for what is taken elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from transom.client.inside import Tensor
from transom.client.interp.traces import Input, Trace
from transom.client.interp.values import Derived, Output, Value, inline
from transom.errors import InvalidRequest

Wanted = Mapping[str, "Trace[Any] | Value"]
"""What a plan is to give, by name: traces, and values derived of them."""


def plan_of(model: str, wanted: Wanted, seed: int = 0) -> dict[str, Any]:
    """The plan that gives what is wanted, and runs whatever that needs.

    A trace that is only needed by others is called `run_1` and so on; a value, `value_1`.

    Raises:
        InvalidRequest: nothing would come back, or two traces are swept.
    """
    return _Plan(wanted).spelled(model, seed)


class _Plan:
    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._names: dict[int, str] = {id(each): name for name, each in wanted.items()}
        self._runs: dict[str, Any] = {}
        self._derive: dict[str, Any] = {}
        self._swept: list[Trace[Any]] = []
        # An id names an object only as long as the object lives.
        self._alive: list[object] = []

    def spelled(self, model: str, seed: int) -> dict[str, Any]:
        returned = [name for each in self._wanted.values() for name in self._returned(each)]
        if not returned:
            raise InvalidRequest("Nothing would come back; read something.", param="return")
        plan: dict[str, Any] = {"model": model} | ({"seed": seed} if seed else {})
        plan |= {"runs": self._runs} | ({"derive": self._derive} if self._derive else {})
        plan |= {"return": returned}
        return plan | self._sweep()

    def _sweep(self) -> dict[str, Any]:
        if len(self._swept) > 1:
            raise InvalidRequest(
                "A plan sweeps one trace; run the others in plans of their own.", param="sweep"
            )
        return {"sweep": self._part(self._swept[0].axes)} if self._swept else {}

    def _returned(self, wanted: Trace[Any] | Value) -> list[str]:
        if isinstance(wanted, Trace):
            return [f"{self._run(wanted)}.{name}" for name in wanted.outputs]
        if isinstance(wanted, Output):
            # What a run reads has its name there; the sum of one value is the value, by any name.
            name = self._names[id(wanted)]
            self._derive[name] = {"add": [self._output(wanted)]}
            return [f"derive.{name}"]
        return [self._part(wanted)]

    def _run(self, trace: Trace[Any]) -> str:
        name = self._name(trace, "run")
        if name not in self._runs:
            if trace.axes:
                self._swept.append(trace)
            # A trace knows only traces that were there before it, so this comes to an end.
            self._runs[name] = {"input": _input(trace.input), **self._part(trace.parts)}
        return name

    def _derived(self, value: Derived) -> str:
        name = self._name(value, "value")
        if name not in self._derive:
            self._derive[name] = {value.operation: self._part(value.operands)} | dict(value.more or {})
        return f"derive.{name}"

    def _output(self, output: Output) -> str:
        return f"{self._run(output.trace)}.{output.name}"

    def _part(self, part: Any) -> Any:  # noqa: ANN401, PLR0911
        match part:
            case Trace():
                return self._run(part)
            case Output():
                return self._output(part)
            case Derived():
                return self._derived(part)
            case Tensor() | np.ndarray():
                return inline(part)
            case Mapping():
                return {key: self._part(value) for key, value in part.items()}
            case np.generic():
                return part.item()
            case list() | tuple() | range():
                return [self._part(each) for each in part]
            case _:
                return part

    def _name(self, thing: object, kind: str) -> str:
        if id(thing) not in self._names:
            taken = {*self._names.values(), *self._wanted}
            number = next(n for n in range(1, len(taken) + 2) if f"{kind}_{n}" not in taken)
            self._names[id(thing)] = f"{kind}_{number}"
            self._alive.append(thing)
        return self._names[id(thing)]


def _input(given: Input) -> Any:  # noqa: ANN401
    if isinstance(given, str | Mapping):
        return given
    if all(isinstance(each, Mapping) for each in given):
        return {"messages": [dict(each) for each in given if isinstance(each, Mapping)]}
    return {"token_ids": [int(each) for each in given if not isinstance(each, Mapping)]}
