"""Does all experiments: by plain PyTorch, by a server alone, and by it in traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.equality.asking import COMPANY, Server, in_traffic
from benchmarks.equality.experiment import Difference, Experiment, Found, is_same
from benchmarks.equality.grading import attribution, direct
from benchmarks.equality.patching import ablation, patching, paths
from benchmarks.equality.plain import Plain
from benchmarks.equality.reading import attention, dataset, lens, readout
from benchmarks.equality.sampling import sampling
from benchmarks.equality.steering import directions, steering

ALL: tuple[Callable[[], Experiment], ...] = (
    sampling,
    dataset,
    lens,
    attention,
    patching,
    ablation,
    steering,
    directions,
    attribution,
    direct,
    paths,
    readout,
)
"""In the order of `words.EXPERIMENTS`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one experiment."""

    key: str
    difference: Difference
    """Of the server's answers from plain PyTorch."""
    from_exact: tuple[Difference, Difference] | None
    """Of the server's answers, and of plain PyTorch, from the model in float64."""
    is_same: bool
    """Whether each value has the same bytes alone and in traffic."""
    company: int
    """Requests of others that were under way meanwhile."""

    @property
    def is_good(self) -> bool:
        """Whether it is what it must be."""
        return self.difference.is_small and self.is_same and self.company >= COMPANY


def measure(server: Server, plain: Plain, exact: Plain | None = None) -> list[Outcome]:
    """Do all experiments.

    Args:
        server: that is asked.
        plain: the model that it serves.
        exact: the same in float64; None for no such comparison.

    Raises:
        ValueError: values are not of the same kind, or tokens differ.
        OSError: the server refuses a request.
    """
    experiments = [make() for make in ALL]
    alone = [server.answer(each) for each in experiments]
    beside = in_traffic(server, experiments)
    return [
        Outcome(
            each.key, *_differences(each, found, plain, exact), is_same(found, other.found), other.company
        )
        for each, found, other in zip(experiments, alone, beside, strict=True)
    ]


def _differences(
    experiment: Experiment, found: Found, plain: Plain, exact: Plain | None
) -> tuple[Difference, tuple[Difference, Difference] | None]:
    ours, theirs = experiment.conclude(found), experiment.reference(plain)
    if exact is None:
        return experiment.compare(ours, theirs), None
    truth = experiment.reference(exact)
    from_exact = experiment.compare(ours, truth), experiment.compare(theirs, truth)
    return experiment.compare(ours, theirs), from_exact


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """The keys of those that are not what they must be."""
    return [outcome.key for outcome in outcomes if not outcome.is_good]
