"""Causal experiments: put one run's values into another, or a mean into their place, and see what changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from transom.client.inside import Tensor, Traced
from transom.client.interp import lookups
from transom.client.interp.lookups import Answers
from transom.client.interp.subject import Steps, Subject, traced
from transom.client.interp.traces import Input, Pos, Trace
from transom.client.interp.values import Value
from transom.errors import InvalidRequest
from transom.schema.plan import MAX_RUNS
from transom.schema.plans.runs import MAX_READS
from transom.schema.plans.sweeps import MAX_CELLS
from transom.schema.points import POINTS

T = TypeVar("T")

Over = Literal["layer", "pos", "head"]

_MOST_REFERENCES = MAX_RUNS // 2


@dataclass(frozen=True, slots=True)
class Patching:
    """What each patch makes of a difference of logits."""

    logit_diff: Tensor
    """Of the corrupt run with one patch, over what was patched: layer, pos, head."""
    clean: float
    """The difference of the clean run."""
    corrupt: float
    """The difference of the corrupt run, unpatched."""
    records: tuple[str, ...]

    @property
    def restored(self) -> Tensor:
        """How much of the way from the corrupt to the clean run a patch goes: 0 nothing, 1 all of it."""
        return (self.logit_diff - self.corrupt) / (self.clean - self.corrupt)

    def plot(self, title: str = "") -> Any:  # noqa: ANN401
        """`restored`; see `Tensor.plot`."""
        return self.restored.plot(title)


def activation_patching(
    model: Subject[Any],
    clean: Input,
    corrupt: Input,
    answers: Answers,
    *,
    at: str = "resid_post",
    over: Sequence[Over] = ("layer", "pos"),
    pos: Literal["all"] | Sequence[int] = "all",
) -> Steps[Patching]:
    """Run the corrupt prompt, each time with one value of the clean run; the metric is the logit difference.

    Meng et al. 2022 (arXiv 2202.05262); Wang et al. 2022 (arXiv 2211.00593) with logit differences.

    Args:
        model: what is looked into.
        clean: the prompt whose values are taken.
        corrupt: the prompt they are put into; as many tokens.
        answers: the clean prompt's answer and the corrupt one's.
        at: a point, without its layer.
        over: what is patched one by one; `("layer", "head")` with `at="z"` patches heads.
        pos: positions: those that are gone through with `pos` in `over`, else those patched together.

    Raises:
        InvalidRequest: the prompts differ in length, or there is more to patch than a plan sweeps.
    """
    check_point(at)
    length = yield from lookups.common_length(model, clean, corrupt)
    first, second = yield from lookups.answer_ids(model, answers)
    sweep = yield from _axes(model, at, over, pos, length)
    source = model.trace(clean).logits([first, second])
    target = model.trace(corrupt).logits([first, second])
    patched = target.patch(
        f"{at}.{{layer}}" if "layer" in over else at,
        source=source,
        pos="{pos}" if "pos" in over else pos,
        head=["{head}"] if "head" in over else None,
    )
    found: list[Traced] = []
    for layers in _shares(sweep):
        cells = patched.sweep(**{**sweep, **layers})
        found.append((yield from traced(model, clean=source, corrupt=target, patched=cells)))
    effect = _joined([difference(each["patched.logits"]) for each in found])
    labels = yield from lookups.position_labels(model, corrupt, sweep.get("pos", ()))
    before, after = (float(difference(found[0][f"{run}.logits"])) for run in ("clean", "corrupt"))
    named = effect.named(**labels) if "pos" in over else effect
    return Patching(named, before, after, tuple(each.record for each in found))


def mean_ablate(
    model: Subject[Any],
    prompt: Input,
    answers: Answers,
    *,
    reference: Sequence[Input],
    at: str = "mlp_out_post",
    over: Sequence[Literal["layer", "head"]] = ("layer",),
    pos: Pos = "all",
) -> Steps[Tensor]:
    """Put the mean that a value has over other prompts in its place; how the logit difference changes.

    The mean is over the positions of each reference prompt, then over the prompts. What comes back is the
    difference of logits with a value ablated, minus that without, over `layer` and, where asked, `head`.
    Negative numbers say that the value was needed for the first answer.

    Raises:
        InvalidRequest: there are too many reference prompts, or none.
    """
    check_point(at)
    if not 1 <= len(reference) <= _MOST_REFERENCES:
        raise InvalidRequest(f"Give 1 to {_MOST_REFERENCES} reference prompts.", param="reference")
    tokens = yield from lookups.answer_ids(model, answers)
    point = yield from lookups.point(model, at)
    heads: Sequence[int | None] = range(point.heads or 0) if "head" in over else [None]
    places = [(layer, head) for layer in point.layers or () for head in heads]
    plain, sources = model.trace(prompt).logits(tokens), [model.trace(each) for each in reference]
    effects: list[float] = []
    for some in _pieces(places, min(MAX_READS, MAX_RUNS - len(sources) - 1)):
        ablated = _ablated(plain, sources, at, some, pos)
        found = yield from traced(model, plain=plain, **ablated)
        base = difference(found["plain.logits"])
        effects += [float(difference(found[f"{name}.logits"]) - base) for name in ablated]
    shape = (len(point.layers or ()), *([len(heads)] if "head" in over else []))
    return Tensor(np.array(effects, np.float32).reshape(shape), tuple(sorted(over, reverse=True)))


def difference(logits: Tensor) -> Tensor:
    """The first logit minus the second, where two were read at one position."""
    one = logits.at(pos=0)
    return one.at(token=0) - one.at(token=1)


def _ablated(
    plain: Trace[Any],
    sources: Sequence[Trace[Any]],
    at: str,
    places: Sequence[tuple[int, int | None]],
    pos: Pos,
) -> dict[str, Trace[Any]]:
    sites = {
        f"without_{layer}" + ("" if head is None else f"_{head}"): (f"{at}.{layer}", head)
        for layer, head in places
    }
    for name, (site, head) in sites.items():
        sources = [each.read(site, name=name, head=head, reduce="mean") for each in sources]
    return {
        name: plain.mean(site, Value.mean_of([each[name] for each in sources]), head=head, pos=pos)
        for name, (site, head) in sites.items()
    }


def check_point(at: str) -> None:
    """Refuse what is no point's name by itself."""
    if at not in POINTS:
        message = f"Name a point without its layer, such as resid_post or z; {at} is none."
        raise InvalidRequest(message, param="at")


def _axes(
    model: Subject[Any], at: str, over: Sequence[Over], pos: Literal["all"] | Sequence[int], length: int
) -> Steps[dict[str, list[int]]]:
    """What the sweep goes over, in the order that values have."""
    point = yield from lookups.point(model, at)
    offered = {
        "layer": list(point.layers or ()),
        "pos": list(range(length)) if pos == "all" else list(pos),
        "head": list(range(point.heads or 0)),
    }
    for axis in over:
        if not offered[axis]:
            raise InvalidRequest(f"{at} has no {axis} to go over.", param="over")
    if point.layers and "layer" not in over:
        raise InvalidRequest(f"Every layer has its own {at}; put layer into over.", param="over")
    return {axis: places for axis, places in offered.items() if axis in over}


def _shares(sweep: dict[str, list[int]]) -> Iterator[dict[str, list[int]]]:
    """Its layers in shares that a plan sweeps at once."""
    cells = math.prod(len(places) for axis, places in sweep.items() if axis != "layer")
    if cells > MAX_CELLS:
        message = f"{cells} patches in a layer are more than the {MAX_CELLS} of a sweep; choose positions."
        raise InvalidRequest(message, param="pos")
    if "layer" not in sweep:
        yield {}
        return
    for layers in _pieces(sweep["layer"], MAX_CELLS // cells):
        yield {"layer": layers}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    data = np.concatenate([part.data for part in parts])
    return Tensor(data, tuple(axis.removeprefix("sweep_") for axis in parts[0].axes))


def _pieces(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
