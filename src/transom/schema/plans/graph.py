"""How the parts of a plan hang together: what each reference names, and in which order all can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from pydantic_core import InitErrorDetails

from transom.schema.plans.derive import Expression
from transom.schema.plans.refs import Derived, RunOutput, Use, WholeRun
from transom.schema.plans.runs import Run
from transom.schema.plans.sweeps import swept_run
from transom.schema.plans.values import Loc, listed, problem


@dataclass(frozen=True, slots=True)
class Parts:
    """The runs and derived values of a plan. Nodes are runs by their name, and `derive.name`."""

    runs: Mapping[str, Run]
    derive: Mapping[str, Expression]

    def uses(self) -> Iterator[tuple[str, Use]]:
        """Every reference of every node, with the node and with where it stands."""
        for name, run in self.runs.items():
            for use in run.refs():
                yield name, use.below("runs", name)
        for name, expression in self.derive.items():
            for use in expression.refs():
                yield f"derive.{name}", use.below("derive", name)

    def order(self) -> list[str]:
        """All nodes, each after those that it takes values of.

        Raises:
            CycleError: there is no such order; its second argument is a cycle.
        """
        needs: dict[str, list[str]] = {name: [] for name in self.runs}
        needs |= {f"derive.{name}": [] for name in self.derive}
        for node, use in self.uses():
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
        loc = next(use.loc for node, use in parts.uses() if node == second and node_of(use) == first)
        names = " -> ".join(cycle if len(cycle) <= 9 else [*cycle[:4], "...", *cycle[-4:]])
        message = "closes a cycle: {cycle}, each needed by the next; take this value from elsewhere"
        return problem(loc, "cycle", message, cycle=names)
    return None


def reference_problems(parts: Parts, returned: list[Use]) -> list[InitErrorDetails]:
    """References to what there is not, and to what does not fit where it is used."""
    swept = swept_run(parts.runs)
    found: list[InitErrorDetails] = []
    for node, use in [*parts.uses(), *(("", use) for use in returned)]:
        finding = _missing(parts, use) or _unfit(parts, use)
        if finding is None and use.role == "run" and node_of(use) == swept != node:
            message = "is repeated by the sweep and so is not one run; name another"
            finding = problem(use.loc, "reference", message)
        if finding is not None:
            found.append(finding)
    return found


def _missing(parts: Parts, use: Use) -> InitErrorDetails | None:
    match use.target:
        case WholeRun(run=run) if run not in parts.runs:
            return _unknown(use.loc, f"run {run}", run, list(parts.runs))
        case RunOutput(run=run) if run not in parts.runs:
            return _unknown(use.loc, f"run {run}", run, list(parts.runs))
        case RunOutput(run=run, name=name, part=part):
            return _missing_in(use.loc, f"{run}.", name, part, parts.runs[run].outputs)
        case Derived(name=name, part=part):
            offered = {known: expression.parts for known, expression in parts.derive.items()}
            return _missing_in(use.loc, "derive.", name, part, offered)
        case _:
            return None


def _missing_in(
    loc: Loc, owner: str, name: str, part: str | None, offered: Mapping[str, tuple[str, ...]]
) -> InitErrorDetails | None:
    if name not in offered:
        return _unknown(loc, owner + name, name, list(offered))
    if part is not None and part not in offered[name]:
        return _unknown(loc, f"{owner}{name}.{part}", part, list(offered[name]))
    return None


def _unknown(loc: Loc, what: str, name: str, known: list[str]) -> InitErrorDetails:
    near = get_close_matches(name, known, n=3)
    message = "names {what}, which the plan has not; {remedy}"
    remedy = f"did you mean {listed(near)}?" if near else f"there is: {listed(known)}"
    return problem(loc, "reference", message, what=what, remedy=remedy)


def _unfit(parts: Parts, use: Use) -> InitErrorDetails | None:
    """What is wrong with taking a value that exists for what it is used for."""
    if use.role == "returned" or not isinstance(use.target, RunOutput | Derived):
        return None
    target = use.target
    offered = _parts_of(parts, target)
    if offered and target.part is None:
        message = "is two tensors, {parts}; name one by adding .{second}"
        return problem(use.loc, "reference", message, parts=" and ".join(offered), second=offered[1])
    if target.part == "ids" or _is_tokens(parts, target):
        message = "holds integers that only name something; they can be returned, but not computed with"
        return problem(use.loc, "reference", message)
    if use.role == "mean" and isinstance(target, RunOutput) and not _has_no_positions(parts, target):
        message = (
            'has an axis of positions, and mean takes none; add "reduce": "mean" to that read, or use set'
        )
        return problem(use.loc, "reference", message)
    return None


def _parts_of(parts: Parts, target: RunOutput | Derived) -> tuple[str, ...]:
    if isinstance(target, Derived):
        return parts.derive[target.name].parts
    return parts.runs[target.run].outputs[target.name]


def _is_tokens(parts: Parts, target: RunOutput | Derived) -> bool:
    # No read of a run that generates is called so.
    generates = isinstance(target, RunOutput) and parts.runs[target.run].generate is not None
    return generates and target.name == "tokens"


def _has_no_positions(parts: Parts, target: RunOutput) -> bool:
    read = parts.runs[target.run].read.get(target.name)
    return read is not None and read.reduce == "mean"
