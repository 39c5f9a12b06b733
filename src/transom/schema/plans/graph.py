"""How the parts of a plan hang together: what each reference names, and in which order all can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import chain, islice

from pydantic_core import InitErrorDetails

from transom.schema.plans.derive import Expression
from transom.schema.plans.refs import Derived, RunOutput, Use, WholeRun
from transom.schema.plans.runs import Run
from transom.schema.plans.sweeps import swept_run
from transom.schema.plans.values import Loc, listed, problem

MAX_FINDINGS = 32
"""Most findings about references in one answer; a plan can hold more than anybody reads."""

_Offered = Mapping[str, tuple[str, ...]]
"""Values by name, each with the names of its tensors where they are two."""


class Parts:
    """The runs and derived values of a plan, as one graph. Its nodes are runs by name, and `derive.name`."""

    def __init__(self, runs: Mapping[str, Run], derive: Mapping[str, Expression]) -> None:
        self.runs = runs
        self.derive = derive

    @cached_property
    def uses(self) -> Sequence[tuple[str, Use]]:
        """Every reference of every node, with the node and with where it stands."""
        of_runs = ((name, use.below("runs", name)) for name, run in self.runs.items() for use in run.refs())
        of_derived = (
            (f"derive.{name}", use.below("derive", name))
            for name, expression in self.derive.items()
            for use in expression.refs()
        )
        return [*of_runs, *of_derived]

    @cached_property
    def outputs(self) -> Mapping[str, _Offered]:
        """What each run offers."""
        return {name: run.outputs for name, run in self.runs.items()}

    @cached_property
    def derived(self) -> _Offered:
        """What is derived."""
        return {name: expression.parts for name, expression in self.derive.items()}

    def order(self) -> list[str]:
        """All nodes, each after those that it takes values of.

        Raises:
            CycleError: there is no such order; its second argument is a cycle.
        """
        needs: dict[str, list[str]] = {name: [] for name in self.runs}
        needs |= {f"derive.{name}": [] for name in self.derive}
        for node, use in self.uses:
            if (other := node_of(use)) is not None:
                needs[node].append(other)
        return list(TopologicalSorter(needs).static_order())


def node_of(use: Use) -> str | None:
    """The node that a reference takes a value of; None for artifacts and inline tensors."""
    match use.target:
        case RunOutput(run=name) | WholeRun(run=name):
            return name
        case Derived(name=name):
            return f"derive.{name}"
        case _:
            return None


def cycle_problem(parts: Parts) -> InitErrorDetails | None:
    """The finding that names a cycle, at one of the references that close it."""
    try:
        parts.order()
    except CycleError as error:
        # graphlib names them so that each is needed by the next.
        cycle: list[str] = error.args[1]
        first, second = cycle[-2], cycle[-1]
        loc = next(use.loc for node, use in parts.uses if node == second and node_of(use) == first)
        names = " -> ".join(cycle if len(cycle) <= 9 else [*cycle[:4], "...", *cycle[-4:]])
        message = "closes a cycle: {cycle}, each needed by the next; take this value from elsewhere"
        return problem(loc, "cycle", message, cycle=names)
    return None


def reference_problems(parts: Parts, returned: list[Use]) -> list[InitErrorDetails]:
    """References to what there is not, and to what does not fit where it is used."""
    swept = swept_run(parts.runs)
    uses = chain(parts.uses, (("", use) for use in returned))
    return list(islice(_findings(parts, uses, swept), MAX_FINDINGS))


def _findings(parts: Parts, uses: Iterator[tuple[str, Use]], swept: str | None) -> Iterator[InitErrorDetails]:
    for node, use in uses:
        finding = _missing(parts, use) or _unfit(parts, use)
        if finding is None and use.role == "run" and node_of(use) == swept != node:
            finding = problem(
                use.loc, "reference", "is repeated by the sweep and so not one run; name another"
            )
        if finding is not None:
            yield finding


def _missing(parts: Parts, use: Use) -> InitErrorDetails | None:
    match use.target:
        case WholeRun(run=run) | RunOutput(run=run) if run not in parts.runs:
            return _unknown(use.loc, f"the run {run}", run, parts.runs)
        case RunOutput(run=run, name=name, part=part):
            return _missing_in(use.loc, f"{run}.{name}", name, part, parts.outputs[run])
        case Derived(name=name, part=part):
            return _missing_in(use.loc, f"derive.{name}", name, part, parts.derived)
        case _:
            return None


def _missing_in(
    loc: Loc, what: str, name: str, part: str | None, offered: _Offered
) -> InitErrorDetails | None:
    if name not in offered:
        return _unknown(loc, what, name, offered)
    if part is not None and part not in offered[name]:
        return _unknown(loc, f"{what}.{part}", part, offered[name])
    return None


def _unknown(
    loc: Loc, what: str, name: str, known: Mapping[str, object] | tuple[str, ...]
) -> InitErrorDetails:
    near = get_close_matches(name, known, n=3)
    message = "names {what}, which the plan has not; {remedy}"
    remedy = f"did you mean {listed(near)}?" if near else f"there is: {listed(known)}"
    return problem(loc, "reference", message, what=what, remedy=remedy)


def _unfit(parts: Parts, use: Use) -> InitErrorDetails | None:
    """What is wrong with taking a value that exists for what it is used for."""
    target = use.target
    if use.role == "returned" or not isinstance(target, RunOutput | Derived):
        return None
    tensors = parts.derived[target.name] if isinstance(target, Derived) else _outputs(parts, target)
    if tensors and target.part is None:
        message = "is two tensors, {parts}; name one by adding .{second}"
        return problem(use.loc, "reference", message, parts=" and ".join(tensors), second=tensors[1])
    if target.part == "ids" or _is_tokens(parts, target):
        message = "holds integers that only name something; they can be returned, but not computed with"
        return problem(use.loc, "reference", message)
    if use.role == "mean" and isinstance(target, RunOutput) and not _has_no_positions(parts, target):
        message = (
            'has an axis of positions, and mean takes none; add "reduce": "mean" to that read, or use set'
        )
        return problem(use.loc, "reference", message)
    return None


def _outputs(parts: Parts, target: RunOutput) -> tuple[str, ...]:
    return parts.outputs[target.run][target.name]


def _is_tokens(parts: Parts, target: RunOutput | Derived) -> bool:
    # No read of a run that generates is called so.
    generates = isinstance(target, RunOutput) and parts.runs[target.run].generate is not None
    return generates and target.name == "tokens"


def _has_no_positions(parts: Parts, target: RunOutput) -> bool:
    read = parts.runs[target.run].read.get(target.name)
    return read is not None and read.reduce == "mean"
