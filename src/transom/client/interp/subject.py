"""The model that is looked into: its name, its plans, and what is known of it.

Nothing here touches the network. What takes requests is written as steps: a generator that yields each
operation or plan, and gets its answer. The client that waits and the one that is awaited carry out the same
steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from transom.client.inside import Traced
from transom.client.interp.plans import plan_of
from transom.client.interp.traces import Input, Trace
from transom.client.interp.values import Value
from transom.client.operations import Operation
from transom.client.types import Tokens
from transom.schema.point_views import PointView

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan to carry out, however large its result is."""

    plan: Mapping[str, Any]


Steps: TypeAlias = Generator[Operation[Any] | Planned, Any, T]


@dataclass(slots=True)
class Known:
    """What was asked of a model before, so that it is asked once."""

    texts: dict[int, str] = field(default_factory=dict)
    """What tokens are spelled like."""
    prompts: dict[str, Tokens] = field(default_factory=dict)
    """By the JSON of each."""
    points: dict[str, PointView] = field(default_factory=dict)


class Subject(ABC, Generic[R]):
    """A model by its name. What carrying out a plan returns is `R`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = Known()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def trace(self, prompt: Input) -> Trace[R]:
        """One run of the model over a text, token ids or messages; see `Trace` for what can be done in it."""
        return Trace(self, prompt)

    def plan(self, *, seed: int = 0, **outputs: Trace[Any] | Value) -> dict[str, Any]:
        """The plan that gives traces and values by these names, as it would be sent: plain data.

        Raises:
            InvalidRequest: nothing would come back, or two traces are swept.
        """
        return plan_of(self.name, outputs, seed)

    @abstractmethod
    def run(self, *, seed: int = 0, **outputs: Trace[Any] | Value) -> R:
        """Carry several traces out in one plan: `run(clean=…, patched=…)`; a value comes as `derive.name`.

        Raises:
            TransomError: the server refused; `param` names the field of the plan.
        """


def traced(model: Subject[Any], seed: int = 0, /, **outputs: Trace[Any] | Value) -> Steps[Traced]:
    """`run`, as steps."""
    found: Traced = yield Planned(model.plan(seed=seed, **outputs))
    return found
