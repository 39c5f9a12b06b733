"""Gradients of a plan against the model at hand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transom.errors import InvalidRequest, UnsupportedParameter
from transom.schema.changes import SiteSpec
from transom.schema.dimensions import Dimensions
from transom.schema.plans.grads import Divergence, Dot, Grad, GradDelta, Integrated, LogitDiff, Logprob
from transom.schema.plans.runs import Run
from transom.schema.plans.sites import Site
from transom.schema.plans.tensors import Inline
from transom.schema.program import GradSpec, MetricSpec, ModelPoint, RunSpec, Unembed, WrtSpec
from transom.services.planning.positions import Line, resolve
from transom.services.planning.siting import Cell, Sites


@dataclass(frozen=True, slots=True)
class Around:
    """What the gradients of a run need of the rest of its plan."""

    sites: Sites
    value: Callable[[str | Inline], str]
    """The name of what a reference stands for."""
    borrow: Callable[[str, SiteSpec, str, Unembed | None], str]
    """The name of what another run has at a site, perhaps behind the output matrix."""
    check_tokens: Callable[[list[int], str], None]


def grad_of(run: Run, line: Line, cell: Cell, around: Around, param: str) -> GradSpec | None:
    """The gradients of a run; None where it asks for none.

    Raises:
        InvalidRequest: the model has not what is asked for; names the field.
        UnsupportedParameter: that is not offered.
    """
    grad = run.grad
    if grad is None:
        return None
    if run.write:
        raise UnsupportedParameter("Gradients of a run that writes are not offered yet.", param=param)
    others = _other_run(grad)
    mode = grad.mode if isinstance(grad.mode, str) else "grad_x_delta"
    return GradSpec(
        metric=_metric(grad, line, cell, around, f"{param}.of"),
        wrt=tuple(
            _wrt(name, site, others, line, cell, around, f"{param}.wrt.{name}")
            for name, site in grad.wrt.items()
        ),
        mode="integrated" if isinstance(grad.mode, Integrated) else mode,
        steps=grad.mode.integrated if isinstance(grad.mode, Integrated) else 1,
    )


Widths = Mapping[tuple[str, int], int]
"""Numbers of a position, by point and layer."""


def widths_of(points: Sequence[ModelPoint]) -> Widths:
    """Of every place that a model has; 0 where that is the length of the sequence."""
    return {(point.name, layer): point.heads * point.width for point in points for layer in point.layers}


def check_memory(runs: Sequence[RunSpec], dimensions: Dimensions, widths: Widths) -> None:
    """Pass runs each of whose gradients fits into the memory that one may take; each waits for the last.

    Raises:
        UnsupportedParameter: the model's forward cannot be differentiated.
        InvalidRequest: one does not fit; names the field, and how long a prompt would.
    """
    for run in runs:
        if run.grad is not None:
            _check_memory(run, dimensions, widths)


def _check_memory(run: RunSpec, dimensions: Dimensions, widths: Widths) -> None:
    def needed(tokens: int) -> int:
        return gradient_bytes(run, tokens, dimensions, widths)

    param, tokens, most = f"runs.{run.origin}.grad", len(run.token_ids), dimensions.gradient_bytes
    if dimensions.graph is None:
        raise UnsupportedParameter("A forward of this model cannot be differentiated.", param=param)
    if needed(tokens) <= most:
        return
    fits = bisect_right(range(tokens), most, key=needed) - 1
    raise InvalidRequest(
        f"Gradients of a prompt of {tokens} tokens take up to {needed(tokens) >> 20} MiB of memory, and "
        f"{most >> 20} MiB are allowed: enough for {max(0, fits)} tokens.",
        param=param,
        code="plan_too_large",
    )


def gradient_bytes(run: RunSpec, tokens: int, dimensions: Dimensions, widths: Widths) -> int:
    """Bytes that the gradients of a run take at most while they are computed, had it so many tokens."""
    if run.grad is None:
        return 0
    sites = [site for wrt in run.grad.wrt for site in wrt.sites]
    sites += [run.grad.metric.site] if run.grad.metric.site is not None else []
    seen = sum(widths[place] for place in {(site.point, site.layer) for site in sites})
    return dimensions.gradient(tokens, tokens * seen)


def _other_run(grad: Grad) -> str | None:
    """The run whose values a gradient is multiplied by, or begins its way at."""
    if isinstance(grad.mode, GradDelta):
        return grad.mode.grad_x_delta
    return grad.mode.baseline if isinstance(grad.mode, Integrated) else None


def _wrt(  # the parts of one
    name: str, site: Site, other: str | None, line: Line, cell: Cell, around: Around, param: str
) -> WrtSpec:
    specs = around.sites.resolve(site, line, cell, param)
    _check_differentiable(site, specs, around, param)
    if specs[0].positions[-1] >= line.prompt:
        raise InvalidRequest("Gradients are taken at positions of the prompt.", param=f"{param}.pos")
    others = () if other is None else tuple(around.borrow(other, spec, param, None) for spec in specs)
    return WrtSpec(name=name, sites=specs, layered=site.has_layer_axis, others=others)


def _check_differentiable(site: Site, specs: tuple[SiteSpec, ...], around: Around, param: str) -> None:
    name = site.point.name
    if all(around.sites.shape(name, spec.layer).differentiable for spec in specs):
        return
    remedy = "attn_out_post has the same gradient" if name == "resid_mid" else "choose a point beside it"
    raise InvalidRequest(f"{name} has no gradient in this model; {remedy}.", param=f"{param}.at")


def _metric(grad: Grad, line: Line, cell: Cell, around: Around, param: str) -> MetricSpec:
    of = grad.of
    if isinstance(of, Dot):
        site, ref = of.dot
        (spec,) = around.sites.resolve(site, line, cell, f"{param}.dot.0")
        _check_differentiable(site, (spec,), around, f"{param}.dot.0")
        return MetricSpec(kind="dot", site=spec, value=around.value(ref), position=line.prompt - 1)
    (position,) = resolve(of.pos, line, around.sites.tokenizer, f"{param}.pos")
    if position >= line.prompt:
        raise InvalidRequest("A metric is of a position of the prompt.", param=f"{param}.pos")
    match of:
        case LogitDiff():
            around.check_tokens(list(of.logit_diff), f"{param}.logit_diff")
            return MetricSpec(kind="logit_diff", tokens=of.logit_diff, position=position)
        case Logprob():
            around.check_tokens([of.logprob], param)
            return MetricSpec(kind="logprob", tokens=(of.logprob,), position=position)
        case Divergence():
            there = SiteSpec(point="final_norm", positions=(position,))
            value = around.borrow(of.kl, there, f"{param}.kl", Unembed(logits=True))
            return MetricSpec(kind="kl", value=value, position=position)
