"""A served model to look into: the builder of traces, and the experiments of the papers, by either client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from transom.client.inside import Traced
from transom.client.interp import attribution, collecting, lookups, patching, reading, steering
from transom.client.interp.subject import Planned, Steps, Subject, traced
from transom.client.interp.traces import Trace
from transom.client.interp.values import Value
from transom.client.operations import Operation
from transom.errors import TransomError

P = ParamSpec("P")
T = TypeVar("T")


class Sends(Protocol):
    """A client that waits."""

    def send(self, operation: Operation[T]) -> T:
        """Carry out one operation."""
        ...

    def trace(self, plan: Mapping[str, Any]) -> Traced:
        """Carry out a plan; a large result is fetched in parts."""
        ...


class SendsLater(Protocol):
    """A client that is awaited."""

    async def send(self, operation: Operation[T]) -> T:
        """Carry out one operation."""
        ...

    async def trace(self, plan: Mapping[str, Any]) -> Traced:
        """Carry out a plan; a large result is fetched in parts."""
        ...


def _waits(
    steps: Callable[Concatenate[Subject[Any], P], Steps[T]],
) -> Callable[Concatenate[LanguageModel, P], T]:
    def method(self: LanguageModel, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.carry_out(steps(self, *args, **kwargs))

    update_wrapper(method, steps)
    return method


def _awaited(
    steps: Callable[Concatenate[Subject[Any], P], Steps[T]],
) -> Callable[Concatenate[AsyncLanguageModel, P], Awaitable[T]]:
    def method(self: AsyncLanguageModel, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self.carry_out(steps(self, *args, **kwargs))

    update_wrapper(method, steps)
    return method


class LanguageModel(Subject[Traced]):
    """A model to look into; get one from `client.model()`.

    `trace(prompt)` begins a trace, `run(a=…, b=…)` carries several out in one plan; the other methods are
    experiments, each a plan or a few, whose results have named axes.
    """

    def __init__(self, client: Sends, name: str) -> None:
        super().__init__(name)
        self._client = client

    def run(self, *, seed: int = 0, **outputs: Trace[Any] | Value) -> Traced:
        """Carry several traces out in one plan: `run(clean=…, patched=…)`; a value comes as `derive.name`.

        Raises:
            TransomError: the server refused; `param` names the field of the plan.
        """
        return self.carry_out(traced(self, seed, **outputs))

    def carry_out(self, steps: Steps[T]) -> T:
        """Carry out steps: the operations that they yield, one after the other. Refusals reach the steps."""
        with closing(steps):
            answer: Any = None
            while True:
                try:
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                except StopIteration as end:
                    done: T = end.value
                    return done
                try:
                    answer = self._done(step)
                except TransomError as refused:
                    answer = refused

    def _done(self, step: Operation[Any] | Planned) -> Any:  # noqa: ANN401
        return self._client.trace(step.plan) if isinstance(step, Planned) else self._client.send(step)

    token = _waits(lookups.token)
    tokens = _waits(lookups.tokens)
    logit_lens = _waits(reading.logit_lens)
    attention = _waits(reading.attention)
    activation_patching = _waits(patching.activation_patching)
    mean_ablate = _waits(patching.mean_ablate)
    attribution_patching = _waits(attribution.attribution_patching)
    direct_logit_attribution = _waits(attribution.direct_logit_attribution)
    steer = _waits(steering.steer)
    collect = _waits(collecting.collect)


class AsyncLanguageModel(Subject[Awaitable[Traced]]):
    """`LanguageModel`, awaited; get one from `await client.model()` of an `AsyncClient`."""

    def __init__(self, client: SendsLater, name: str) -> None:
        super().__init__(name)
        self._client = client

    def run(self, *, seed: int = 0, **outputs: Trace[Any] | Value) -> Awaitable[Traced]:
        """Carry several traces out in one plan: `run(clean=…, patched=…)`; a value comes as `derive.name`.

        Raises:
            TransomError: the server refused; `param` names the field of the plan.
        """
        return self.carry_out(traced(self, seed, **outputs))

    async def carry_out(self, steps: Steps[T]) -> T:
        """Carry out steps: the operations that they yield, one after the other. Refusals reach the steps."""
        with closing(steps):
            answer: Any = None
            while True:
                try:
                    step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
                except StopIteration as end:
                    done: T = end.value
                    return done
                try:
                    answer = await self._done(step)
                except TransomError as refused:
                    answer = refused

    async def _done(self, step: Operation[Any] | Planned) -> Any:  # noqa: ANN401
        if isinstance(step, Planned):
            return await self._client.trace(step.plan)
        return await self._client.send(step)

    token = _awaited(lookups.token)
    tokens = _awaited(lookups.tokens)
    logit_lens = _awaited(reading.logit_lens)
    attention = _awaited(reading.attention)
    activation_patching = _awaited(patching.activation_patching)
    mean_ablate = _awaited(patching.mean_ablate)
    attribution_patching = _awaited(attribution.attribution_patching)
    direct_logit_attribution = _awaited(attribution.direct_logit_attribution)
    steer = _awaited(steering.steer)
    collect = _awaited(collecting.collect)
